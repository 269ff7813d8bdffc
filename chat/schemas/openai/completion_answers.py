"""Types of what /v1/completions gives, whole and in chunks."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from chat.schemas.openai.chat_answers import CompletionFinish, CompletionUsage, Timings, TokenLogprob
from chat.schemas.stream_types import StreamStatus


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Tokens with their log-probabilities; ``text_offset`` counts characters from the start of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]

    @classmethod
    def of(cls, tokens: list[TokenLogprob], offset: int = 0) -> "TextLogprobs":
        offsets = [offset]
        for token in tokens:
            offsets.append(offsets[-1] + len(token.token))
        return cls(
            tokens=[token.token for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[{top.token: top.logprob for top in token.top_logprobs} for token in tokens],
            text_offset=offsets[: len(tokens)],
        )


class TextChoice(Struct, frozen=True, kw_only=True):
    """An answer, or in a chunk a piece of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: CompletionFinish | None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """The body of /v1/completions, and one event of its stream. ``x_status`` reports a state between two tokens."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    x_status: StreamStatus | UnsetType = UNSET
