"""Errors as clients of OpenAI's API read them: one object with message, type, param and code."""

from http import HTTPStatus

from django.http import JsonResponse
from msgspec import UNSET, Struct, UnsetType

from chat.errors import ChatError
from chat.schemas.answer_types import as_json
from chat.schemas.error_bodies import headers_of

CONTEXT_OVERFLOW = "context_overflow"
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.CONFLICT: "conflict_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
# Codes that programs compare; all others are this service's own.
_CODES = {
    CONTEXT_OVERFLOW: "context_length_exceeded",
    "caller_limit": "rate_limit_exceeded",
    "invalid_token": "invalid_api_key",
    "not_authenticated": "invalid_api_key",
}


class OpenAIError(Struct, frozen=True, kw_only=True):
    """``param`` is the path of the wrong field. The token counts belong to a prompt that does not fit."""

    message: str
    type: str
    param: str | None
    code: str
    n_prompt_tokens: int | UnsetType = UNSET
    n_ctx: int | UnsetType = UNSET
    generation_id: str | UnsetType = UNSET

    @classmethod
    def of(cls, error: ChatError) -> "OpenAIError":
        return cls(
            message=error.message,
            type=_type_of(error),
            param=error.field,
            code=_CODES.get(error.code, error.code),
            n_prompt_tokens=error.extra.get("prompt_tokens", UNSET),
            n_ctx=error.extra.get("context_size", UNSET),
            generation_id=error.extra.get("generation_id", UNSET),
        )


class OpenAIErrorAnswer(Struct, frozen=True, kw_only=True):
    error: OpenAIError


def _type_of(error: ChatError) -> str:
    if error.code == CONTEXT_OVERFLOW:
        return "exceed_context_size_error"
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return _TYPES.get(HTTPStatus(error.status), "invalid_request_error")


def openai_error_response(error: ChatError) -> JsonResponse:
    # OpenAI has 400 for a prompt that does not fit; its clients take no other status for it.
    status = HTTPStatus.BAD_REQUEST if error.code == CONTEXT_OVERFLOW else error.status
    body = as_json(OpenAIErrorAnswer(error=OpenAIError.of(error)))
    return JsonResponse(body, status=status, headers=headers_of(error))
