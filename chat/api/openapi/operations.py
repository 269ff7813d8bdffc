"""The table of HTTP operations: which types each route takes and gives. ``document`` builds the document from it."""

from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from chat.schemas import answer_types as answers
from chat.schemas import gpu_answers as gpu
from chat.schemas import memory_answers as memory
from chat.schemas.chat_bodies import ChatBody, CompletionBody
from chat.schemas.conversation_bodies import ConversationAnswer, ConversationBody
from chat.schemas.gpu_bodies import AcquireBody, OptionalSessionBody, SessionBody, TaskBody
from chat.schemas.memory_bodies import NoteBody, NoteSearchBody, SearchBody, TranscriptBody, TranscriptFiltersBody
from chat.schemas.service_answers import HealthAnswer, ServiceIndexAnswer
from chat.schemas.stream_types import MAX_AFTER, FailedLine, FinalLine, StartedLine, TokenLine
from chat.schemas.token_bodies import LoginBody, RefreshBody, TokenPair

Json = dict[str, Any]
Type = type[Struct]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the query or a header."""

    name: str
    description: str
    schema: Json
    where: str = "query"


@dataclass(frozen=True)
class Operation:
    """One method of one route. ``answer`` None: the success has no JSON body, or ``media`` describes it."""

    name: str  # of the URL pattern
    method: str
    path: str
    summary: str
    tag: str
    answer: Type | None = None
    body: Type | None = None
    status: int = 200
    other_answers: dict[int, Type] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    media: dict[str, Json] = field(default_factory=dict)
    body_is_optional: bool = False
    lists: Type | None = None  # the answer is a page of these
    is_public: bool = False


# Every operation with credentials may be refused for them; every one with a body for the body.
AUTH_ERRORS = (401, 403)
BODY_ERRORS = (400, 413, 415)
TURN_ERRORS = (404, 409, 413, 429, 500, 503, 504)
STORE_ERRORS = (503,)

_LIMIT = Parameter("limit", "Entries of a page.", {"type": "integer", "minimum": 1, "maximum": 500})
_OFFSET = Parameter("offset", "Entries before the page.", {"type": "integer", "minimum": 0, "maximum": 10**9})
_PAGE = (_LIMIT, _OFFSET)
_KEY = Parameter(
    "Idempotency-Key",
    "The same key with the same body gives the same generation.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "header",
)
_AFTER = {"type": "integer", "minimum": 0, "maximum": MAX_AFTER}
_RESUMING = (
    Parameter("after", "The id of the last line that the client has.", _AFTER),
    Parameter("Last-Event-ID", "As ``after``; browsers send it when they reconnect.", _AFTER, "header"),
)
STREAM_LINES: tuple[Type, ...] = (StartedLine, TokenLine, FinalLine, FailedLine)
_EVENT = {
    "type": "object",
    "description": "One server-sent event. Lines that begin with a colon are pings.",
    "required": ["id", "data"],
    "properties": {
        "id": {"type": "string", "description": "The `id` of the line."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": [{"$ref": f"#/components/schemas/{line.__name__}"} for line in STREAM_LINES]},
        },
    },
}
_STREAM = {"text/event-stream": {"schema": _EVENT}}
_EXPORT = Parameter("format", "The format of the file.", {"type": "string", "enum": ["json", "markdown"]})
_SEARCH = Parameter("search", "Text that title or messages contain.", {"type": "string", "maxLength": 200})
_MARKDOWN = {"text/markdown": {"schema": {"type": "string"}}}

OPERATIONS = (
    Operation(
        "root", "get", "/", "Name of the service and its endpoints", "service", ServiceIndexAnswer, is_public=True
    ),
    Operation(
        "health",
        "get",
        "/health",
        "Whether chats can be served",
        "service",
        HealthAnswer,
        other_answers={503: HealthAnswer},
        is_public=True,
    ),
    Operation(
        "schema", "get", "/api/schema/", "This document", "service", is_public=True, media={"application/json": {}}
    ),
    Operation(
        "docs",
        "get",
        "/api/docs/",
        "This document as a page",
        "service",
        is_public=True,
        media={"text/html": {"schema": {"type": "string"}}},
    ),
    Operation(
        "chat",
        "post",
        "/chat",
        "One answer as JSON",
        "chat",
        answers.ChatAnswer,
        ChatBody,
        errors=TURN_ERRORS,
        parameters=(_KEY,),
    ),
    Operation(
        "chat-stream",
        "post",
        "/chat/stream",
        "One answer token by token",
        "chat",
        body=ChatBody,
        errors=TURN_ERRORS,
        parameters=(_KEY,),
        media=_STREAM,
    ),
    Operation(
        "chat-resume",
        "get",
        "/chat/stream/{generation_id}",
        "The rest of a stream",
        "chat",
        errors=(400, 404, 503),
        parameters=_RESUMING,
        media=_STREAM,
    ),
    Operation(
        "generate",
        "post",
        "/generate",
        "Completion of a raw prompt",
        "chat",
        answers.CompletionAnswer,
        CompletionBody,
        errors=TURN_ERRORS,
        parameters=(_KEY,),
    ),
    Operation(
        "generation-cancel",
        "post",
        "/api/generations/{generation_id}/cancel",
        "Stop an answer",
        "chat",
        answers.CancelAnswer,
        errors=(404, 409, 503),
    ),
    Operation(
        "conversation-list",
        "get",
        "/api/conversations/",
        "The caller's conversations, the last continued first",
        "conversations",
        lists=ConversationAnswer,
        errors=(400, 503),
        parameters=(*_PAGE, _SEARCH),
    ),
    Operation(
        "conversation-list",
        "post",
        "/api/conversations/",
        "A new conversation",
        "conversations",
        ConversationAnswer,
        ConversationBody,
        status=201,
        errors=STORE_ERRORS,
    ),
    Operation(
        "conversation-detail",
        "get",
        "/api/conversations/{pk}/",
        "One conversation",
        "conversations",
        ConversationAnswer,
        errors=(404, 503),
    ),
    Operation(
        "conversation-detail",
        "patch",
        "/api/conversations/{pk}/",
        "Change a conversation",
        "conversations",
        ConversationAnswer,
        ConversationBody,
        errors=(404, 503),
    ),
    Operation(
        "conversation-detail",
        "delete",
        "/api/conversations/{pk}/",
        "Delete a conversation with all that belongs to it",
        "conversations",
        status=204,
        errors=(404, 503),
    ),
    Operation(
        "conversation-messages",
        "get",
        "/api/conversations/{pk}/messages/",
        "Its messages, oldest first",
        "conversations",
        lists=answers.MessageAnswer,
        errors=(400, 404, 503),
        parameters=_PAGE,
    ),
    Operation(
        "conversation-summaries",
        "get",
        "/api/conversations/{pk}/summaries/",
        "Versions of its summary, newest first",
        "conversations",
        lists=answers.SummaryAnswer,
        errors=(400, 404, 503),
        parameters=_PAGE,
    ),
    Operation(
        "conversation-export",
        "get",
        "/api/conversations/{pk}/export/",
        "The conversation as a file",
        "conversations",
        answers.ConversationExport,
        errors=(400, 404, 503),
        parameters=(_EXPORT,),
        media=_MARKDOWN,
    ),
    Operation(
        "memory-search-semantic",
        "post",
        "/search/semantic",
        "Search memories",
        "memories",
        memory.SearchAnswer,
        SearchBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-search-old",
        "post",
        "/search",
        "Search memories (older form of the answer)",
        "memories",
        memory.OldSearchAnswer,
        SearchBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-index",
        "post",
        "/index/transcript",
        "Store a transcript, or replace it",
        "memories",
        memory.IndexAnswer,
        TranscriptBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-add",
        "post",
        "/memory/add",
        "Store a note",
        "memories",
        memory.NoteIdAnswer,
        NoteBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-list",
        "get",
        "/memory/list",
        "Notes, newest first",
        "memories",
        memory.NoteListAnswer,
        errors=(400, 503),
        parameters=_PAGE,
    ),
    Operation(
        "memory-search",
        "post",
        "/memory/search",
        "Search notes",
        "memories",
        memory.NoteSearchAnswer,
        NoteSearchBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-stats",
        "get",
        "/memory/stats",
        "How many memories there are",
        "memories",
        memory.StatsAnswer,
        errors=STORE_ERRORS,
    ),
    Operation(
        "memory-delete",
        "delete",
        "/memory/{memory_id}",
        "Delete a note",
        "memories",
        memory.NoteIdAnswer,
        errors=(404, 503),
    ),
    Operation(
        "transcripts-recent",
        "get",
        "/transcripts/recent",
        "Transcripts, last recorded first",
        "memories",
        memory.TranscriptListAnswer,
        errors=(400, 503),
        parameters=(_LIMIT,),
    ),
    Operation(
        "transcripts-speakers",
        "get",
        "/transcripts/speakers",
        "Names of all speakers",
        "memories",
        memory.SpeakersAnswer,
        errors=STORE_ERRORS,
    ),
    Operation(
        "transcripts-count",
        "post",
        "/transcripts/count",
        "Count transcripts",
        "memories",
        memory.CountAnswer,
        TranscriptFiltersBody,
        errors=STORE_ERRORS,
    ),
    Operation(
        "transcript",
        "get",
        "/transcript/{job_id}",
        "One transcript with its segments",
        "memories",
        memory.WholeTranscriptAnswer,
        errors=(404, 503),
    ),
    Operation(
        "transcript",
        "delete",
        "/transcript/{job_id}",
        "Delete a transcript",
        "memories",
        memory.TranscriptIdAnswer,
        errors=(404, 503),
    ),
    Operation(
        "card-warmup",
        "post",
        "/warmup",
        "Bring the model to the GPU and wait for it",
        "gpu",
        gpu.WarmupAnswer,
        OptionalSessionBody,
        errors=STORE_ERRORS,
        body_is_optional=True,
    ),
    Operation(
        "card-move-to-cpu",
        "post",
        "/move-to-cpu",
        "Take the model off the GPU",
        "gpu",
        gpu.MoveToCpuAnswer,
        errors=STORE_ERRORS,
    ),
    Operation(
        "card-release-session",
        "post",
        "/release-session",
        "Let a session no longer keep the GPU",
        "gpu",
        gpu.ReleaseSessionAnswer,
        OptionalSessionBody,
        errors=STORE_ERRORS,
        body_is_optional=True,
    ),
    Operation(
        "gpu-acquire",
        "post",
        "/gpu/acquire",
        "Acquire the GPU",
        "gpu",
        gpu.AcquireAnswer,
        AcquireBody,
        errors=(404, 503),
    ),
    Operation(
        "gpu-renew", "post", "/gpu/renew", "Renew a lease", "gpu", gpu.RenewAnswer, SessionBody, errors=(404, 503)
    ),
    Operation(
        "gpu-release",
        "post",
        "/gpu/release",
        "Release the GPU",
        "gpu",
        gpu.ReleaseAnswer,
        SessionBody,
        errors=(404, 503),
    ),
    Operation("gpu-state", "get", "/gpu/state", "The holder of the GPU", "gpu", gpu.GpuStateAnswer, errors=(404, 503)),
    Operation(
        "gpu-old-request",
        "post",
        "/gemma/request",
        "Acquire the GPU (older protocol)",
        "gpu",
        gpu.OldGrantAnswer,
        TaskBody,
        other_answers={500: gpu.OldRefusalAnswer},
        errors=(404, 503),
    ),
    Operation(
        "gpu-old-release",
        "post",
        "/gemma/release/{task_id}",
        "Release the GPU (older protocol)",
        "gpu",
        gpu.OldReleaseAnswer,
        errors=(404, 503),
    ),
    Operation(
        "gpu-old-status",
        "get",
        "/status",
        "The holder of the GPU (older protocol)",
        "gpu",
        gpu.OldStatusAnswer,
        errors=(404, 503),
    ),
    Operation(
        "gpu-force-reset",
        "post",
        "/admin/force-reset",
        "Take the GPU from its holder",
        "gpu",
        gpu.ResetAnswer,
        errors=(404, 503),
    ),
    Operation(
        "token",
        "post",
        "/api/token/",
        "Log in",
        "tokens",
        TokenPair,
        LoginBody,
        errors=(401, 429, 503),
        is_public=True,
    ),
    Operation(
        "token-refresh",
        "post",
        "/api/token/refresh/",
        "The next pair of tokens",
        "tokens",
        TokenPair,
        RefreshBody,
        errors=(401, 503),
        is_public=True,
    ),
)
