"""Types of what clients receive for a turn: answers, messages, summaries, sources, usage, errors.

A field that may be missing is UNSET by default; a field that is null for "none" is always there.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chat.enums import Strategy
from chat.models import Role, SummaryState
from inference.enums import FinishReason, Status

Json = dict[str, Any]
Milliseconds = Annotated[float, Meta(description="Milliseconds.")]
ThoughtText = Annotated[
    str, Meta(description="Text in which a reasoning model prepares its answer; no part of the answer.")
]


class ErrorObject(Struct, frozen=True, kw_only=True):
    """``code`` is for programs, ``message`` for people; ``field`` is the path of the wrong field of a body."""

    code: str
    message: str
    field: str | UnsetType = UNSET
    generation_id: str | UnsetType = UNSET
    prompt_tokens: int | UnsetType = UNSET  # of a prompt that does not fit, or the least it has
    context_size: int | UnsetType = UNSET
    max_bytes: int | UnsetType = UNSET  # of a body that is too large


class ErrorAnswer(Struct, frozen=True, kw_only=True):
    error: ErrorObject


class SourceAnswer(Struct, frozen=True, kw_only=True):
    """A memory or document that the model was shown under ``label``.

    ``cited``: the answer names the label, or an annotation does."""

    label: str = ""
    kind: Annotated[str, Meta(examples=["transcript_segment", "memory", "document"])] = ""
    title: str = ""
    speaker: str = ""
    time: str | None = None
    start_time: float | UnsetType | None = UNSET  # seconds into a recording; missing for notes and documents
    emotion: str = ""
    score: float | None = None  # null where no search ranked it, as for a document of the request
    text: str = ""
    doc_id: str = ""
    cited: bool = False


class AttributionAnswer(Struct, frozen=True, kw_only=True):
    """A sentence of the answer, from character ``start`` to ``end``, that the source with this label supports.

    The service writes these, not the model: the text holds no mark of it."""

    start: int
    end: int
    label: str


class RecalledAnswer(Struct, frozen=True, kw_only=True):
    """A passage of an earlier message that the prompt had beside the question. ``position``: of the message in its
    conversation; ``similarity`` and ``words`` are the parts of its score, null for a search that did not find it."""

    position: int
    role: Role
    said_at: str | None
    score: float
    similarity: float | None
    words: float | None


class HistoryNote(Struct, frozen=True, kw_only=True):
    """Messages that the prompt did not hold word for word."""

    strategy: Strategy
    messages_left_out: int
    messages_summarized: int | UnsetType = UNSET  # covered by the summary in the prompt
    summary_version: int | UnsetType | None = UNSET
    summary: str | UnsetType = UNSET  # why a summary could not be made
    recalled: list[RecalledAnswer] | UnsetType = UNSET  # in the order of the prompt
    recall_problem: str | UnsetType = UNSET  # why the search was limited


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Tokens of a generation; ``cached_tokens`` of the prompt were computed before."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    thought_tokens: Annotated[int, Meta(description="Of `completion_tokens`.")] | UnsetType = UNSET
    history: HistoryNote | UnsetType = UNSET


class DeviceRun(Struct, frozen=True, kw_only=True):
    """Tokens in a row from one device."""

    device: str
    tokens: int


class TurnIds(Struct, frozen=True, kw_only=True):
    """``conversation_id`` and ``message_id`` are null for a turn that is not stored."""

    conversation_id: str | None
    message_id: str | None
    generation_id: str


class OutcomeAnswer(Struct, frozen=True, kw_only=True):
    """The facts of an ended generation."""

    usage: UsageAnswer
    rag_context_used: int
    gpu_wait_time: Annotated[float, Meta(description="Seconds.")]
    inference_time: Annotated[float, Meta(description="Seconds.")]
    finish_reason: FinishReason | None
    sources: list[SourceAnswer]
    timings: dict[str, Milliseconds]
    device: str | None  # of the last token
    devices: list[DeviceRun]
    rag_error: str | UnsetType = UNSET
    annotations: list[AttributionAnswer] | UnsetType = UNSET  # missing where no sources were shown


class ChatAnswer(OutcomeAnswer, frozen=True, kw_only=True):
    """The body of POST /chat. An answer that took longer than JSON_PATIENCE_SECS begins with white space, and may be
    an ``error`` of status 200."""

    response: str
    # Clients of other services read the text under these names.
    message: Annotated[str, Meta(description="The same as `response`.")]
    text: Annotated[str, Meta(description="The same as `response`.")]
    thought: ThoughtText | UnsetType = UNSET
    mode: Annotated[str, Meta(description="`cpu` or `gpu`, the device of the last token.")]
    tokens_generated: int
    model: str
    conversation_id: str | None
    message_id: str | None
    generation_id: str


class CompletionAnswer(Struct, frozen=True, kw_only=True):
    """The body of POST /generate."""

    text: str
    tokens_generated: int
    mode: str
    usage: UsageAnswer
    model: str
    generation_id: str
    finish_reason: FinishReason | None
    timings: dict[str, Milliseconds]


class CancelAnswer(Struct, frozen=True, kw_only=True):
    generation_id: str
    status: Status


class MessageAnswer(Struct, frozen=True, kw_only=True):
    """A message of a stored conversation. Fields about a generation are null or missing for a user's message."""

    id: str
    role: Role
    content: str
    thought: ThoughtText | UnsetType = UNSET
    status: Status
    created_at: str
    finish_reason: FinishReason | None = None
    usage: UsageAnswer | None = None
    timings: dict[str, Milliseconds] | None = None
    device: str | None = None
    sources: list[SourceAnswer] = []  # msgspec copies the default for each message
    generation_id: str | None = None
    devices: list[DeviceRun] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    rag_error: str | UnsetType = UNSET
    annotations: list[AttributionAnswer] | UnsetType = UNSET
    error: ErrorObject | UnsetType = UNSET


class SummaryAnswer(Struct, frozen=True, kw_only=True):
    """A version of a conversation's summary; ``covers_until`` is the position of the last message covered."""

    version: int
    state: SummaryState
    covers_until: int
    text: str
    tokens: int
    generation_id: str | None
    error: str | None
    note: str | None  # which of its pieces are an extract of the user's sentences, and why
    created_at: str
    made_at: str | None  # null while it is being made, and for a failed one


class ConversationExport(Struct, frozen=True, kw_only=True):
    """A whole conversation, as a file."""

    id: str
    title: str
    summary: str
    summaries: list[SummaryAnswer]
    system_prompt: str
    created_at: str
    updated_at: str
    messages: list[MessageAnswer]


def as_json(answer: Struct) -> Json:
    """Return the JSON object of an answer, without its unset fields."""
    body: Json = msgspec.to_builtins(answer)
    return body
