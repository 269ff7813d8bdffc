"""The OpenAPI 3.1 document, built from the table of operations and the structs of ``chat.schemas``."""

import re
from dataclasses import fields
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from django.db.models import Choices

from chat.api.openapi.openai_operations import CHUNKS
from chat.api.openapi.operation import AUTH_ERRORS, BODY_ERRORS, Operation
from chat.api.openapi.operations import OPERATIONS, STREAM_LINES
from chat.schemas.requests import ChatRequest
from chat.schemas.responses.events import EVENTS
from chat.schemas.scalars import PUBLIC_PATTERN, STORABLE_PATTERN
from chat.schemas.stream_types import AnswerFrame, CancelFrame, ChatFrame, ResumeFrame

Json = dict[str, Any]

API_VERSION = "1.0.0"  # of this interface, not of the service
JSON_TYPE = "application/json"
SOCKET_FRAMES = (ChatFrame, ResumeFrame, CancelFrame, AnswerFrame)
DESCRIPTION = """\
Gemma behind HTTP: answers token by token or whole, stored conversations, memories, and the lease of the GPU.

Errors are `{"error": {"code", "message", "field"}}`. Unknown fields of a body are ignored; null stands for a field
that is left out. The WebSocket `/ws/chat` takes the frames ChatFrame, ResumeFrame and CancelFrame and sends
AnswerFrame with the fields of the stream's lines. Each path may end with a slash or without one. `HEAD` is served
where `GET` is, and `OPTIONS` everywhere: 204 with the methods in `Allow`.
"""
# Of these, the answer to a request without credentials depends on the address of the caller.
SECURITY: list[Json] = [{"bearer": []}, {"service": []}, {"session": []}, {}]
SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "service": {"type": "apiKey", "in": "header", "name": "X-Service-Token"},
    "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
}


@cache
def document() -> Json:
    """Return the whole document; the same object each time, not to be changed."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gemma Service", "version": API_VERSION, "description": DESCRIPTION},
        "paths": _paths(),
        "components": {"schemas": _components(), "securitySchemes": SECURITY_SCHEMES},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS)],
    }


def _paths() -> Json:
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return paths


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": f"{operation.name}-{operation.method}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for name in re.findall(r"{(\w+)}", operation.path)
            ),
            *(
                {
                    "name": parameter.name,
                    "in": parameter.where,
                    "description": parameter.description,
                    "schema": parameter.schema,
                }
                for parameter in operation.parameters
            ),
        ],
        "responses": _responses(operation),
        "security": [{}] if operation.is_public else SECURITY,
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.body_is_optional,
            "content": {JSON_TYPE: {"schema": _reference(operation.body)}},
        }
    return described


def _responses(operation: Operation) -> Json:
    success: Json = {"description": HTTPStatus(operation.status).phrase}
    content = dict(operation.media)
    if operation.answer is not None:
        content[JSON_TYPE] = {"schema": _reference(operation.answer)}
    if operation.lists is not None:
        content[JSON_TYPE] = {"schema": _page_of(operation.lists)}
    if content:
        success["content"] = content
    # A malformed header, cookie or Host is refused before the view.
    errors = {400, *operation.errors, *(() if operation.is_public else AUTH_ERRORS)}
    errors |= set(BODY_ERRORS) if operation.body is not None else set()
    responses = {str(operation.status): success}
    responses |= {str(status): {"description": HTTPStatus(status).phrase} for status in operation.empty_answers}
    for status in sorted(errors | set(operation.other_answers)):
        kind = operation.other_answers.get(status, operation.error)
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {JSON_TYPE: {"schema": _reference(kind)}},
        }
    return responses


def _page_of(kind: type[msgspec.Struct]) -> Json:
    link = {"anyOf": [{"type": "string", "format": "uri"}, {"type": "null"}]}
    return {
        "type": "object",
        "required": ["count", "next", "previous", "results"],
        "properties": {
            "count": {"type": "integer"},
            "next": link,
            "previous": link,
            "results": {"type": "array", "items": _reference(kind)},
        },
    }


def _reference(kind: type[msgspec.Struct]) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _components() -> Json:
    kinds: set[type[msgspec.Struct]] = {*STREAM_LINES, *SOCKET_FRAMES, *CHUNKS, *EVENTS}
    for operation in OPERATIONS:
        named = (operation.answer, operation.body, operation.lists, operation.error, *operation.other_answers.values())
        kinds |= {kind for kind in named if kind is not None}
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__),
        ref_template="#/components/schemas/{name}",
        schema_hook=_schema_of_choices,
    )
    for schema in components.values():
        _set_defaults(schema)
    described: Json = _with_public_patterns(dict(sorted(components.items())))
    return described


def _with_public_patterns(schema: Any) -> Any:  # noqa: ANN401
    if isinstance(schema, dict):
        return {name: _with_public_patterns(value) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_with_public_patterns(value) for value in schema]
    return PUBLIC_PATTERN if schema == STORABLE_PATTERN else schema


def _schema_of_choices(kind: type) -> Json:
    """Return the schema of Django's choices, which msgspec does not take for enums."""
    if issubclass(kind, Choices):
        return {"type": "string", "enum": list(kind.values)}
    raise NotImplementedError


def _set_defaults(schema: Json) -> None:
    """Replace the structs' null, which means "not sent", by the defaults of the requests."""
    options = [option for option in fields(ChatRequest) if type(option.default) in (bool, int, float)]
    defaults = {option.name: option.default for option in options}
    properties = schema.get("properties", {})
    if "stream" in properties:
        del defaults["max_tokens"]  # OpenAI's bodies say in their descriptions how long an answer may become
    for name, described in properties.items():
        if "default" in described and described["default"] is None:
            del described["default"]
            if name in defaults and "max_tokens" in properties:
                described["default"] = defaults[name]
