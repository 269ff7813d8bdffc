"""Types of what /v1/completions gives, whole and in chunks."""

from codecs import getincrementaldecoder
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from chat.schemas.openai.chat_answers import CompletionFinish, CompletionUsage, Timings, TokenLogprob, TopLogprob
from chat.schemas.stream_types import StreamStatus


class CharacterCounter:
    """Counts the characters of a text whose tokens come one by one; some of them are part of a character."""

    def __init__(self) -> None:
        self._utf8 = getincrementaldecoder("utf-8")("replace")
        self._count = 0

    def start_of(self, token: TokenLogprob) -> int:
        """Return the place of the character that the next token begins or continues."""
        start = self._count
        self._count += len(self._utf8.decode(bytes(token.bytes)))
        return start


class TextLogprobs(Struct, frozen=True, kw_only=True):
    """Tokens with their log-probabilities; ``text_offset`` counts characters from the start of the text. A part of a
    character is written as its bytes, as in ``bytes:\\xc3``."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]

    @classmethod
    def of(cls, tokens: list[TokenLogprob], counter: CharacterCounter) -> "TextLogprobs":
        return cls(
            tokens=[_written(token) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[{_written(top): top.logprob for top in token.top_logprobs} for token in tokens],
            text_offset=[counter.start_of(token) for token in tokens],
        )


def _written(token: TopLogprob) -> str:
    """Return a token as OpenAI writes it: parts of different characters have different names."""
    if token.token.encode() == bytes(token.bytes):
        return token.token
    return f"bytes:{str(bytes(token.bytes))[2:-1]}"


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
