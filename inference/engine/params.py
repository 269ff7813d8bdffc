"""Parameters of one sequence: sampling, and the rules for its end."""

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Parameters of a draw; names and meanings are llama-server's.

    ``temperature`` 0, or below 1e-5, is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch the filter off.
    ``logit_bias`` maps a token id to an addend; ``-inf`` is written as ``None`` and forbids the token. ``seed`` is set
    when the request is accepted, so that another runner continues with the same draws. With ``penalizes_answer``
    presence and frequency penalties count all tokens of the answer, as OpenAI defines them, and none of the prompt.
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
    penalizes_answer: bool = False
    logit_bias: dict[int, float | None] = {}


class ThoughtMarks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Marks around a thought in the generated text, see ``thought_splitter``.

    ``opens`` begin a thought and ``closes`` end it; ``answers`` are headers of the answer, and ``ends`` close a part
    of the answer before the next header. ``is_open``: the prompt ends within the thought. After ``limit`` tokens of
    thought, ``limit_ids`` end it.
    """

    opens: list[str]
    closes: list[str]
    answers: list[str] = []
    ends: list[str] = []
    is_open: bool = False
    limit: int | None = None
    limit_ids: list[int] = []


class SequenceParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Part of a request that moves with its sequence from runner to runner."""

    sampling: SamplingParams
    max_tokens: int = 512
    stop: list[str] = []
    ignore_eos: bool = False
    cache_prompt: bool = True
    ephemeral: bool = False  # nothing of it may reach a disk
    cache_tags: list[str] = []  # owners of its KV states, see ``kv_cache/purging.py``
    cache_caller: str = ""  # set from the generation's owner: it alone may reuse them, see ``sequences/cache_scope.py``
    n_shared: int = 0  # leading tokens of the prompt that are the installation's own text, which others may reuse
    n_logprobs: int = 0  # alternatives reported with each token's log-probability; 0: neither is reported
    trim_start: bool = False  # leading white space is not text (answers in the transcript format)
    grammar: str = ""  # that the answer obeys, in llguidance's form; empty: none
    highest_label: int | None = None  # citation labels such as [7] above it are removed, see ``citation_filter``
    thought: ThoughtMarks | None = None  # None: all text is the answer
