"""Rendering of a generation's lines into the objects that all completions share."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from chat.schemas.answer_types import HistoryNote, SourceAnswer
from chat.schemas.openai.chat_answers import (
    Annotation,
    CompletionDetails,
    CompletionFinish,
    CompletionUsage,
    PromptDetails,
    Timings,
    TokenLogprob,
    TopLogprob,
)
from inference.config.tokenizer import Tokenizer
from inference.engine.text.citation_filter import citation_labels
from inference.enums import FinishReason

Line = dict[str, Any]

# The citation filter decides which of them are labels.
_BRACKET = re.compile(r"\[[\d ,;\u2013-]+\]")


def finish_reason(last: Line, *, has_calls: bool = False) -> CompletionFinish:
    # OpenAI has no name for an answer that was stopped from elsewhere.
    if last["finish_reason"] == FinishReason.LENGTH:
        return "length"
    return "tool_calls" if has_calls else "stop"


def usage_of(lasts: Sequence[Line], *, n_prompts: int = 1) -> CompletionUsage:
    """Add the usage of all choices; those of one prompt come one after the other."""
    per_prompt = len(lasts) // n_prompts
    # Each prompt is computed once, however many choices it has.
    prompts = [last["usage"] for last in lasts[::per_prompt]]
    n_prompt = sum(usage["prompt_tokens"] for usage in prompts)
    n_completion = sum(last["usage"]["completion_tokens"] for last in lasts)
    n_thought = sum(last["usage"].get("thought_tokens", 0) for last in lasts)
    note = lasts[0]["usage"].get("history")
    return CompletionUsage(
        prompt_tokens=n_prompt,
        completion_tokens=n_completion,
        total_tokens=n_prompt + n_completion,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(usage["cached_tokens"] for usage in prompts)),
        completion_tokens_details=CompletionDetails(reasoning_tokens=n_thought) if n_thought else UNSET,
        history=msgspec.convert(note, HistoryNote) if note else UNSET,
    )


def timings_of(last: Line) -> Timings:
    usage, times = last["usage"], last["timings"]
    n_computed = usage["prompt_tokens"] - usage["cached_tokens"]
    prefill_ms, decode_ms = times.get("prefill", 0.0), times.get("decode", 0.0)
    return Timings(
        cache_n=usage["cached_tokens"],
        prompt_n=n_computed,
        prompt_ms=prefill_ms,
        prompt_per_second=_per_second(n_computed, prefill_ms),
        predicted_n=usage["completion_tokens"],
        predicted_ms=decode_ms,
        predicted_per_second=_per_second(usage["completion_tokens"], decode_ms),
    )


def annotations_of(text: str, last: Line) -> list[Annotation]:
    """Return a citation for each place of a label and each sentence that a source supports, in the text's order."""
    cited = {source["label"]: source for source in last["sources"] if source["cited"]}
    places = [
        (place.start(), place.end(), str(label))
        for place in (_BRACKET.finditer(text) if cited else ())
        for label in sorted(citation_labels(place[0]))
    ]
    places += [(item["start"], item["end"], item["label"]) for item in last.get("annotations", ())]
    return [
        Annotation.of(start, end, msgspec.convert(cited[label], SourceAnswer))
        for start, end, label in sorted(places, key=lambda place: place[:2])
        if label in cited and end <= len(text)
    ]


def token_logprob(logprobs: Line, tokenizer: Tokenizer) -> TokenLogprob:
    token, piece = _spelled(logprobs["token"], tokenizer)
    top = [(*_spelled(token_id, tokenizer), logprob) for token_id, logprob in logprobs["top"]]
    return TokenLogprob(
        id=logprobs["token"],
        token=token,
        bytes=list(piece),
        logprob=logprobs["logprob"],
        top_logprobs=[TopLogprob(token=text, bytes=list(spelled), logprob=logprob) for text, spelled, logprob in top],
    )


def _spelled(token: int, tokenizer: Tokenizer) -> tuple[str, bytes]:
    """Return a token's text and bytes; a control token has its name."""
    piece = tokenizer.spelled(token)
    return piece.decode("utf-8", "replace"), piece


def _per_second(n_tokens: int, time_ms: float) -> float:
    return round(n_tokens * 1000 / time_ms, 2) if time_ms > 0 else 0.0
