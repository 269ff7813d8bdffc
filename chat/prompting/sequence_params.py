"""Translate the options of a request into parameters of the engine."""

import secrets

import msgspec
from django.conf import settings

from chat.enums import Effort
from chat.prompting.chat_format import ChatFormat
from chat.schemas.requests import RunOptions
from inference.engine.params import SamplingParams, SequenceParams, ThoughtMarks

# Of ``max_tokens``, which covers thought and answer. Other efforts leave the amount to the model.
THOUGHT_SHARES = {Effort.NONE: 0.0, Effort.LOW: 0.2, Effort.MEDIUM: 0.5, Effort.HIGH: 0.8}


def sequence_params(
    options: RunOptions,
    chat_format: ChatFormat | None,
    *,
    n_prompt: int,
    context_size: int,
    n_shared: int = 0,
    highest_label: int | None = None,
    is_continued: bool = False,
) -> SequenceParams:
    """Draw a seed if none is given, and bound ``max_tokens`` by the free rest of the context window.

    ``is_continued``: the prompt ends within the answer, whose white space then counts. ``n_shared``: leading tokens
    of the prompt that are the installation's own text.
    """
    sampling = SamplingParams(
        seed=options.seed if options.seed is not None else secrets.randbelow(2**31),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        repeat_last_n=options.repeat_last_n,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        penalizes_answer=options.penalizes_answer,
        logit_bias=dict(options.logit_bias),
    )
    is_free = not options.grammar or options.grammar_has_text
    # The stop strings of a format take the place of an end token: ``ignore_eos`` ignores both, a grammar has its own.
    format_stops = chat_format.stops if chat_format and is_free and not options.ignore_eos else ()
    trim_start = bool(chat_format and chat_format.trim_start) and is_free and not is_continued
    # A prompt that waits for its memories may still grow; then the engine's own limit ends the answer.
    max_tokens = max(1, min(options.max_tokens, context_size - n_prompt))
    # The beginning of an answer that is continued was text already.
    marks = chat_format.thought if chat_format and not is_continued else None
    return SequenceParams(
        sampling=sampling,
        max_tokens=max_tokens,
        stop=[*options.stop, *format_stops],
        ignore_eos=options.ignore_eos,
        cache_prompt=options.cache_prompt,
        n_logprobs=options.n_logprobs,
        trim_start=trim_start,
        grammar=options.grammar,
        highest_label=highest_label,
        n_shared=n_shared,
        thought=_limited(marks, options, max_tokens) if marks else None,
    )


def _limited(marks: ThoughtMarks, options: RunOptions, max_tokens: int) -> ThoughtMarks:
    """Bound thoughts by the share of ``max_tokens`` that an effort stands for, and by a number of tokens; without
    either by ``max_tokens`` alone."""
    share = THOUGHT_SHARES.get(options.reasoning_effort) if options.reasoning_effort else None
    limits = [] if share is None else [int(share * max_tokens)]
    if options.thought_tokens is not None:
        limits.append(options.thought_tokens)
    if not limits:
        return msgspec.structs.replace(marks, limit=None, limit_ids=[])
    return msgspec.structs.replace(marks, limit=min(limits))


def timeout_secs(options: RunOptions) -> float:
    return min(options.timeout_s or settings.REQUEST_TIMEOUT_SECS, settings.REQUEST_TIMEOUT_SECS)
