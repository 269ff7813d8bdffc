"""Errors as clients of Anthropic's API read them."""

from http import HTTPStatus
from typing import Literal

from django.http import JsonResponse
from msgspec import Struct

from chat.errors import ChatError
from chat.schemas.answer_types import as_json
from chat.schemas.error_bodies import headers_of
from chat.schemas.openai.errors import CONTEXT_OVERFLOW

REQUEST_ID_HEADER = "request-id"
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
    HTTPStatus.GATEWAY_TIMEOUT: "timeout_error",
}


class AnthropicError(Struct, frozen=True, kw_only=True):
    """``code`` is this service's own, ``param`` the path of the wrong field."""

    type: str
    message: str
    code: str
    param: str | None


class AnthropicErrorAnswer(Struct, frozen=True, kw_only=True):
    type: Literal["error"] = "error"
    error: AnthropicError
    request_id: str

    @classmethod
    def of(cls, error: ChatError, request_id: str) -> "AnthropicErrorAnswer":
        body = AnthropicError(type=_type_of(error), message=_message(error), code=error.code, param=error.field)
        return cls(error=body, request_id=request_id)


def anthropic_error_response(error: ChatError, request_id: str) -> JsonResponse:
    # Anthropic has 400 for a prompt that does not fit, and 413 for a body that is too large.
    status = HTTPStatus.BAD_REQUEST if error.code == CONTEXT_OVERFLOW else error.status
    body = as_json(AnthropicErrorAnswer.of(error, request_id))
    return JsonResponse(body, status=status, headers={**headers_of(error), REQUEST_ID_HEADER: request_id})


def _type_of(error: ChatError) -> str:
    if error.code == CONTEXT_OVERFLOW:
        return "invalid_request_error"
    if error.status in _TYPES:
        return _TYPES[HTTPStatus(error.status)]
    return "api_error" if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def _message(error: ChatError) -> str:
    if error.code != CONTEXT_OVERFLOW:
        return error.message
    # Programs compare the beginning.
    return f"prompt is too long: {error.extra['prompt_tokens']} tokens > {error.extra['context_size']} maximum"
