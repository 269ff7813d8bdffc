"""Types of a stream's lines, and of the frames of the WebSocket in both directions."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from chat.schemas.answer_types import ErrorObject, OutcomeAnswer, ThoughtText
from chat.schemas.chat_bodies import ChatBody
from inference.enums import StreamState

MAX_AFTER = 2**31  # beyond the tokens of any context
MAX_REQUEST_ID_CHARS = 128

RequestId = Annotated[str, Meta(max_length=MAX_REQUEST_ID_CHARS, description="Repeated in each frame about it.")]
LineId = Annotated[int, Meta(description="The index of the last token; resuming begins after it.")]


class PromptProgress(Struct, frozen=True, kw_only=True):
    """Tokens of a prompt, those of them that are computed or reused so far, and those that were reused."""

    total: int
    processed: int
    cache: int


class StreamStatus(Struct, frozen=True, kw_only=True):
    """The state of a generation between two tokens. ``position`` and ``wait_s`` belong to the queue."""

    state: StreamState
    position: int | UnsetType = UNSET
    # Of a prompt that is computed, or of the parts of a long message.
    progress: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    wait_s: float | UnsetType = UNSET
    prompt: PromptProgress | UnsetType = UNSET


class LineLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probability of a token, and of the likeliest in its place as pairs of token id and log-probability."""

    token: int
    logprob: float
    top: list[tuple[int, float]]  # pairs: a line may have 20 of them


class StartedLine(Struct, frozen=True, kw_only=True):
    """The first line of a stream."""

    id: LineId
    token: str
    done: Literal[False]
    generation_id: str
    conversation_id: str | None
    message_id: str | None


class TokenLine(Struct, frozen=True, kw_only=True):
    """Text of the answer, or with ``status`` a report between two tokens."""

    id: LineId
    token: str
    done: Literal[False]
    thought: ThoughtText | UnsetType = UNSET
    status: StreamStatus | UnsetType = UNSET
    logprobs: LineLogprobs | UnsetType = UNSET


class FinalLine(OutcomeAnswer, frozen=True, kw_only=True):
    """The last line of a stream."""

    id: LineId
    token: str  # text held back for a stop sequence or a label, which is certain only now
    thought: ThoughtText | UnsetType = UNSET
    done: Literal[True]
    model: str
    conversation_id: str | None
    message_id: str | None
    generation_id: str
    error: ErrorObject | UnsetType = UNSET


class FailedLine(Struct, frozen=True, kw_only=True):
    """The last line of a stream that cannot go on."""

    id: LineId
    token: str
    done: Literal[True]
    error: ErrorObject


class ChatFrame(ChatBody, frozen=True, kw_only=True):
    """A client's frame: begin a turn."""

    type: Literal["chat"]
    request_id: RequestId | None = None
    idempotency_key: Any = None  # checked as the header is, with its error


class ResumeFrame(Struct, frozen=True, kw_only=True):
    """A client's frame: go on with a generation after a line."""

    type: Literal["resume"]
    generation_id: Any = None  # a wrong one is not found, as in the path of HTTP
    after: Annotated[int, Meta(ge=0, le=MAX_AFTER)] = 0
    request_id: RequestId | None = None


class CancelFrame(Struct, frozen=True, kw_only=True):
    """A client's frame: stop a generation."""

    type: Literal["cancel"]
    generation_id: Any = None
    request_id: RequestId | None = None


class AnswerFrame(Struct, frozen=True, kw_only=True):
    """A server's frame: a line of a stream with its kind, and with the ids of its generation and of the client's
    frame. Kinds ``done`` and ``error`` are the last of a generation; ``notice`` is about the socket."""

    type: Literal["started", "status", "token", "done", "error", "notice"]
    token: str
    done: bool
    id: LineId | UnsetType = UNSET
    generation_id: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    thought: ThoughtText | UnsetType = UNSET
    status: StreamStatus | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET
    notice: ErrorObject | UnsetType = UNSET
