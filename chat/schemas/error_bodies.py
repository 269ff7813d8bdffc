"""Rendering of errors for HTTP and WebSocket: one JSON object with code, message and field."""

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import (
    DisallowedHost,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.http import Http404, JsonResponse
from rest_framework import exceptions as drf
from rest_framework.response import Response

from chat.error_translation import translate
from chat.errors import (
    BodyTooLarge,
    ChatError,
    Forbidden,
    InvalidJson,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

logger = logging.getLogger(__name__)

TOLD_INSTEAD = {
    "store_unavailable": "Redis or the database does not answer; try again",
    "model_unavailable": "the model cannot be used now",
}
CHALLENGE = 'Bearer realm="gemma-service"'


_OF_DRF: dict[type[drf.APIException], type[ChatError]] = {
    drf.NotAuthenticated: Unauthorized,
    drf.AuthenticationFailed: Unauthorized,
    drf.PermissionDenied: Forbidden,
    drf.NotFound: NotFound,
    drf.MethodNotAllowed: MethodNotAllowed,
    drf.UnsupportedMediaType: UnsupportedMediaType,
    drf.ParseError: InvalidJson,
    drf.Throttled: TooManyRequests,
}


def as_chat_error(error: BaseException) -> ChatError:
    """The client's view of anything that was raised; what nobody foresaw is logged here and told without details."""
    if isinstance(error, drf.APIException):
        return _from_drf(error)
    if isinstance(error, Http404 | ObjectDoesNotExist):
        return NotFound("no such thing")
    if isinstance(error, PermissionDenied):
        return Forbidden("not allowed")
    if isinstance(error, RequestDataTooBig):
        return BodyTooLarge("the body is too large")
    if isinstance(error, DisallowedHost):
        return InvalidRequest("this Host header is not served here", code="invalid_host")
    if isinstance(error, SuspiciousOperation):
        return InvalidRequest("the request is malformed")
    translated = translate(error) if isinstance(error, Exception) else ChatError("interrupted")
    if translated.status == HTTPStatus.INTERNAL_SERVER_ERROR and translated is not error:
        logger.error("unforeseen error", exc_info=error)
    return _without_addresses(translated)


def _without_addresses(error: ChatError) -> ChatError:
    """Whose words come from a driver or name a file are told in ours, and logged as they were."""
    if error.code not in TOLD_INSTEAD or error.message == TOLD_INSTEAD[error.code]:
        return error
    logger.warning("%s: %s", error.code, error.message)
    return Unavailable(TOLD_INSTEAD[error.code], code=error.code, retry_after_secs=error.retry_after_secs)


def _from_drf(error: drf.APIException) -> ChatError:
    kind = next((_OF_DRF[base] for base in type(error).__mro__ if base in _OF_DRF), None)
    if kind is None:
        return ChatError("something went wrong here") if error.status_code >= 500 else InvalidRequest("malformed")
    return kind(str(error.detail), retry_after_secs=getattr(error, "wait", None))


def error_object(error: ChatError) -> dict[str, Any]:
    """What stands under ``error``: code, message, the field if there is one, and what else is known."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.field:
        told["field"] = error.field
    return told | error.extra


def headers_of(error: ChatError) -> dict[str, str]:
    headers = {}
    if error.retry_after_secs is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_secs)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return headers


def error_response(error: ChatError) -> JsonResponse:
    return JsonResponse({"error": error_object(error)}, status=error.status, headers=headers_of(error))


def drf_exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """REST_FRAMEWORK's EXCEPTION_HANDLER."""
    told = as_chat_error(error)
    return Response({"error": error_object(told)}, status=told.status, headers=headers_of(told))
