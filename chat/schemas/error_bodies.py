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
from msgspec import UNSET
from rest_framework import exceptions as drf

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
from chat.schemas.answer_types import ErrorObject, as_json

log = logging.getLogger(__name__)

# Codes whose own messages come from drivers and may name hosts and files.
PUBLIC_MESSAGES = {
    "store_unavailable": "Redis or the database does not answer; try again",
    "model_unavailable": "the model cannot be used now",
}
# Clients repeat requests with these statuses, without this header within a second.
RETRIED = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
DEFAULT_RETRY_SECS = 5
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
    """Return the client's view of any exception; an unforeseen one is logged here and reported without details."""
    if isinstance(error, drf.APIException):
        # By the classes' order, so that a subclass of a package is found under its base.
        kind = next((_OF_DRF[base] for base in type(error).__mro__ if base in _OF_DRF), None)
        if kind is None:
            return ChatError("something went wrong here") if error.status_code >= 500 else InvalidRequest("malformed")
        return kind(str(error.detail), retry_after_secs=getattr(error, "wait", None))
    # Django's message is left out: it names the model.
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
    # No Exception: the task was cancelled.
    translated = translate(error) if isinstance(error, Exception) else ChatError("interrupted")
    # A ChatError of status 500 was raised on purpose.
    if translated.status == HTTPStatus.INTERNAL_SERVER_ERROR and translated is not error:
        log.error("unforeseen error", exc_info=error)
    return _without_addresses(translated)


def _without_addresses(error: ChatError) -> ChatError:
    """Replace a message that comes from a driver or may name a file; the original is logged."""
    if error.code not in PUBLIC_MESSAGES or error.message == PUBLIC_MESSAGES[error.code]:
        return error
    log.warning("service unavailable code=%s error=%s", error.code, error.message)
    return Unavailable(PUBLIC_MESSAGES[error.code], code=error.code, retry_after_secs=error.retry_after_secs)


def error_object(error: ChatError) -> dict[str, Any]:
    """Return the object under ``error``: code, message, the field if there is one, and further facts."""
    return as_json(ErrorObject(code=error.code, message=error.message, field=error.field or UNSET, **error.extra))


def headers_of(error: ChatError) -> dict[str, str]:
    headers = {}
    retry_after_secs = error.retry_after_secs
    if retry_after_secs is None and error.status in RETRIED:
        retry_after_secs = DEFAULT_RETRY_SECS
    if retry_after_secs is not None:
        # HTTP has whole seconds, and 0 would make a client repeat at once.
        headers["Retry-After"] = str(max(1, round(retry_after_secs)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110 requires a challenge with every 401.
        headers["WWW-Authenticate"] = CHALLENGE
    return headers


class ErrorResponse(JsonResponse):
    """An error in this service's form, with the error itself for those who need another form."""

    def __init__(self, error: ChatError) -> None:
        super().__init__({"error": error_object(error)}, status=error.status, headers=headers_of(error))
        # Frames of the traceback refer to this response and to the decoded body: a cycle, which keeps both until the
        # next full collection.
        self.error = error.with_traceback(None)
        self.error.__cause__ = self.error.__context__ = None


def error_response(error: ChatError) -> ErrorResponse:
    return ErrorResponse(error)
