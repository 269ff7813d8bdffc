"""The table of HTTP operations: which types each route takes and gives. ``document`` builds the document from it."""

from chat.api.openapi.account_operations import ACCOUNT_OPERATIONS
from chat.api.openapi.anthropic_operations import ANTHROPIC_OPERATIONS
from chat.api.openapi.gpu_operations import GPU_OPERATIONS
from chat.api.openapi.memory_operations import MEMORY_OPERATIONS
from chat.api.openapi.openai_operations import OPENAI_OPERATIONS
from chat.api.openapi.operation import KEY, PAGE, STORE_ERRORS, TURN_ERRORS, Operation, Parameter, Type, event_stream
from chat.api.openapi.responses_operations import RESPONSES_OPERATIONS
from chat.api.openapi.stack_operations import STACK_OPERATIONS
from chat.schemas import answer_types as answers
from chat.schemas.chat_bodies import ChatBody, CompletionBody
from chat.schemas.conversation_bodies import ConversationAnswer, ConversationBody
from chat.schemas.service_answers import HealthAnswer, ProbeAnswer, ServiceIndexAnswer
from chat.schemas.stream_types import MAX_AFTER, FailedLine, FinalLine, StartedLine, TokenLine

_AFTER = {"type": "integer", "minimum": 0, "maximum": MAX_AFTER}
_RESUMING = (
    Parameter("after", "The id of the last line that the client has; after the final line: 204.", _AFTER),
    Parameter("Last-Event-ID", "As ``after``; browsers send it when they reconnect.", _AFTER, "header"),
)
STREAM_LINES: tuple[Type, ...] = (StartedLine, TokenLine, FinalLine, FailedLine)
_STREAM = event_stream(
    STREAM_LINES,
    "One server-sent event. Lines that begin with a colon are pings.",
    head={"id": {"type": "string", "description": "The `id` of the line."}},
)
_EXPORT = Parameter("format", "The format of the file.", {"type": "string", "enum": ["json", "markdown"]})
_VERSIONS = Parameter(
    "versions",
    "latest: of conversations that are versions of each other the last continued alone.",
    {"type": "string", "enum": ["all", "latest"], "default": "all"},
)
_ARCHIVED = Parameter(
    "archived",
    "true: archived conversations alone; false: the others alone.",
    {"type": "string", "enum": ["all", "true", "false"], "default": "all"},
)
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
        "health-live", "get", "/health/live", "Whether this process answers", "service", ProbeAnswer, is_public=True
    ),
    Operation(
        "health-ready",
        "get",
        "/health/ready",
        "Whether chats can be served, for probes",
        "service",
        ProbeAnswer,
        other_answers={503: ProbeAnswer},
        is_public=True,
    ),
    Operation(
        "metrics",
        "get",
        "/metrics",
        "Figures for Prometheus; for this machine, staff and bearers of METRICS_TOKEN",
        "service",
        media={"text/plain": {"schema": {"type": "string"}}},
        errors=(503,),
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
        parameters=(KEY,),
    ),
    Operation(
        "chat-stream",
        "post",
        "/chat/stream",
        "One answer token by token",
        "chat",
        body=ChatBody,
        errors=TURN_ERRORS,
        parameters=(KEY,),
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
        empty_answers=(204,),
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
        parameters=(KEY,),
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
        parameters=(*PAGE, _SEARCH, _VERSIONS, _ARCHIVED),
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
        body_is_optional=True,
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
        body_is_optional=True,
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
        parameters=PAGE,
    ),
    Operation(
        "conversation-versions",
        "get",
        "/api/conversations/{pk}/versions/",
        "The conversation and those that branched off it or with it, oldest first",
        "conversations",
        lists=ConversationAnswer,
        errors=(400, 404, 503),
        parameters=PAGE,
    ),
    Operation(
        "conversation-summaries",
        "get",
        "/api/conversations/{pk}/summaries/",
        "Versions of its summary, newest first",
        "conversations",
        lists=answers.SummaryAnswer,
        errors=(400, 404, 503),
        parameters=PAGE,
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
    *MEMORY_OPERATIONS,
    *STACK_OPERATIONS,
    *GPU_OPERATIONS,
    *ACCOUNT_OPERATIONS,
    *OPENAI_OPERATIONS,
    *RESPONSES_OPERATIONS,
    *ANTHROPIC_OPERATIONS,
)
