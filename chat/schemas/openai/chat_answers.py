"""Types of what /v1/chat/completions gives, whole and in chunks."""

from typing import Any, Literal, Self

from msgspec import UNSET, Struct, UnsetType

from chat.schemas.answer_types import HistoryNote, SourceAnswer, ThoughtText
from chat.schemas.stream_types import PromptProgress, StreamStatus

CompletionFinish = Literal["stop", "length", "tool_calls"]


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A token that was likely at a place. ``bytes`` are those of its text, which may be part of a character."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob, frozen=True, kw_only=True):
    """A token of the answer."""

    id: int
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct, frozen=True, kw_only=True):
    content: list[TokenLogprob]
    refusal: None = None  # required in OpenAI's schema


class UrlCitation(Struct, frozen=True, kw_only=True):
    """Place of a citation label in the text; ``url`` names the memory."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(Struct, frozen=True, kw_only=True):
    """A citation of a source."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation
    source: SourceAnswer

    @classmethod
    def of(cls, start: int, end: int, source: SourceAnswer) -> Self:
        title, url = source.title or source.speaker, f"memory:{source.doc_id}"
        citation = UrlCitation(start_index=start, end_index=end, title=title, url=url)
        return cls(url_citation=citation, source=source)


class PromptDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int


class CompletionDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """Tokens of all choices; their common prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails | UnsetType = UNSET
    history: HistoryNote | UnsetType = UNSET


class Timings(Struct, frozen=True, kw_only=True):
    """Times of a generation in llama-server's names; ``cache_n`` tokens of the prompt were not computed."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class AnsweredFunction(Struct, frozen=True, kw_only=True):
    """``arguments`` is JSON that the tool's schema accepts, unless ``max_tokens`` has cut it."""

    name: str
    arguments: str


class AnsweredToolCall(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: AnsweredFunction


class FunctionDelta(Struct, frozen=True, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str


class ToolCallDelta(Struct, frozen=True, kw_only=True):
    """The beginning of a call, with id and name, or more of its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class AnswerMessage(Struct, frozen=True, kw_only=True):
    """``content`` is null for an answer that only calls tools."""

    role: Literal["assistant"] = "assistant"
    content: str | None  # required even when null, in OpenAI's schema
    tool_calls: list[AnsweredToolCall] | UnsetType = UNSET
    reasoning_content: ThoughtText | UnsetType = UNSET
    refusal: None = None
    annotations: list[Annotation]


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None  # null, not missing, as OpenAI has it
    finish_reason: CompletionFinish


class ChatCompletionAnswer(Struct, frozen=True, kw_only=True):
    """The body of /v1/chat/completions. The fields after ``usage`` are extensions; ``conversation_id`` is null for a
    turn that is not stored."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    metadata: dict[str, str] | UnsetType = UNSET
    timings: Timings
    conversation_id: str | None
    message_id: str | None
    rag_error: str | UnsetType = UNSET


class ChoiceDelta(Struct, frozen=True, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: ThoughtText | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChoiceDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: CompletionFinish | None = None


class TimedProgress(PromptProgress, frozen=True, kw_only=True):
    """Progress in llama-server's names. ``time_ms``: since the stream began."""

    time_ms: float


class ChatCompletionChunk(Struct, frozen=True, kw_only=True):
    """An event of a stream. ``x_status`` reports what the answer waits for, ``prompt_progress`` on request the tokens
    of the prompt; ``conversation_id`` and ``message_id`` are in the first chunk, ``timings`` in the last of a choice,
    ``usage`` in one of its own when asked for."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET  # null in every chunk but one when it was requested
    timings: Timings | UnsetType = UNSET
    x_status: StreamStatus | UnsetType = UNSET
    prompt_progress: TimedProgress | UnsetType = UNSET
    conversation_id: str | UnsetType | None = UNSET
    message_id: str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
