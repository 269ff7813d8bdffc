"""The description of one route and method in the OpenAPI document."""

import re
from http import HTTPStatus
from typing import Any

import msgspec

from chat.api.openapi.operation import AUTH_ERRORS, BODY_ERRORS, Operation

Json = dict[str, Any]

JSON_TYPE = "application/json"
# Of these, the answer to a request without credentials depends on the address of the caller.
SECURITY: list[Json] = [{"bearer": []}, {"service": []}, {"session": []}, {}]


def operation_object(operation: Operation) -> Json:
    """Return the operation with its parameters, body and every status that it answers with."""
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
