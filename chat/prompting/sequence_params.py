"""Translate the options of a request into parameters of the engine."""

import secrets

from django.conf import settings

from chat.prompting.chat_templates import ChatFormat
from chat.schemas.requests import RunOptions
from inference.engine.params import SamplingParams, SequenceParams


def sequence_params(
    options: RunOptions,
    chat_format: ChatFormat | None,
    *,
    n_prompt: int,
    context_size: int,
    highest_label: int | None = None,
    is_continued: bool = False,
) -> SequenceParams:
    """Draw a seed if none is given, and bound ``max_tokens`` by the free rest of the context window.

    ``is_continued``: the prompt ends within the answer, whose white space then counts.
    """
    sampling = SamplingParams(
        seed=options.seed if options.seed is not None else secrets.randbelow(2**31),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repeat_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        logit_bias=dict(options.logit_bias),
    )
    is_free = not options.grammar or options.grammar_has_text
    # The stop strings of a format take the place of an end token: ``ignore_eos`` ignores both, a grammar has its own.
    format_stops = chat_format.stops if chat_format and is_free and not options.ignore_eos else ()
    trim_start = bool(chat_format and chat_format.trim_start) and is_free and not is_continued
    return SequenceParams(
        sampling=sampling,
        # A prompt that waits for its memories may still grow; then the engine's own limit ends the answer.
        max_tokens=max(1, min(options.max_tokens, context_size - n_prompt)),
        stop=[*options.stop, *format_stops],
        ignore_eos=options.ignore_eos,
        cache_prompt=options.cache_prompt,
        n_logprobs=options.n_logprobs,
        trim_start=trim_start,
        grammar=options.grammar,
        highest_label=highest_label,
        # The beginning of an answer that is continued was text already.
        thought=chat_format.thought if chat_format and not is_continued else None,
    )


def timeout_secs(options: RunOptions) -> float:
    return min(options.timeout_s or settings.REQUEST_TIMEOUT_SECS, settings.REQUEST_TIMEOUT_SECS)
