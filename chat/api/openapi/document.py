"""The OpenAPI 3.1 document, built from the table of operations and the structs of ``chat.schemas``."""

from functools import cache
from typing import Any

from chat.api.openapi.component_schemas import component_schemas
from chat.api.openapi.operation_object import operation_object
from chat.api.openapi.operations import OPERATIONS

Json = dict[str, Any]

API_VERSION = "1.0.0"  # of this interface, not of the service
DESCRIPTION = """\
Gemma behind HTTP: answers token by token or whole, stored conversations, memories, and the lease of the GPU.

Errors are `{"error": {"code", "message", "field"}}`. Unknown fields of a body are ignored; null stands for a field
that is left out. The WebSocket `/ws/chat` takes the frames ChatFrame, ResumeFrame and CancelFrame and sends
AnswerFrame with the fields of the stream's lines. Each path may end with a slash or without one. `HEAD` is served
where `GET` is, and `OPTIONS` everywhere: 204 with the methods in `Allow`.
"""
SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token or API key."},
    "service": {"type": "apiKey", "in": "header", "name": "X-Service-Token"},
    "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
}


@cache
def document() -> Json:
    """Return the whole document; the same object each time, not to be changed."""
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation_object(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Gemma Service", "version": API_VERSION, "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": component_schemas(), "securitySchemes": SECURITY_SCHEMES},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS)],
    }
