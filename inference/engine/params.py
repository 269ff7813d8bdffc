"""What one sequence is asked to produce: sampling and the rules for its end."""

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the next token is drawn; names and meanings are llama-server's.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch the filter off. ``logit_bias``
    maps a token id to an addend; ``-inf`` is written as ``None`` and forbids the token. ``seed`` is always set:
    whoever accepts the request draws one, so that another runner can go on with the same draws.
    """

    seed: int
    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float | None] = {}


class SequenceParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a request that follows a sequence to whichever runner computes it."""

    sampling: SamplingParams
    max_tokens: int = 512
    stop: list[str] = []
    ignore_eos: bool = False
    cache_prompt: bool = True
    ephemeral: bool = False  # nothing of it may reach a disk
    cache_tags: list[str] = []  # whom its KV states belong to, see ``kv_cache/purging.py``
    n_logprobs: int = 0  # alternatives to tell with each token's own log-probability; 0: tell none
    trim_start: bool = False  # the transcript format's answers begin with a space that is not text
    highest_label: int | None = None  # labels such as [7] above it are taken out of the text (``labels.py``)
