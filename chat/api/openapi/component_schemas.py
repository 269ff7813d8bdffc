"""The schemas of the OpenAPI document, generated from the structs of ``chat.schemas``."""

from dataclasses import fields
from typing import Any

import msgspec
from django.db.models import Choices

from chat.api.openapi.openai_operations import CHUNKS
from chat.api.openapi.operations import OPERATIONS, STREAM_LINES
from chat.schemas.anthropic.answers import MESSAGE_EVENTS
from chat.schemas.requests import ChatRequest
from chat.schemas.responses.events import EVENTS
from chat.schemas.scalars import PUBLIC_PATTERN, STORABLE_PATTERN
from chat.schemas.stream_types import AnswerFrame, CancelFrame, ChatFrame, ResumeFrame

Json = dict[str, Any]

SOCKET_FRAMES = (ChatFrame, ResumeFrame, CancelFrame, AnswerFrame)


def component_schemas() -> Json:
    """Return the JSON Schema of every struct that a request, an answer or a frame consists of, by name."""
    kinds: set[type[msgspec.Struct]] = {*STREAM_LINES, *SOCKET_FRAMES, *CHUNKS, *EVENTS, *MESSAGE_EVENTS}
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
