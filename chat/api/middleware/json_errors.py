"""The outermost middleware: refuses bodies that are too large unread, and renders every error as JSON."""

import json
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from chat.access.authentication import BUDGET_KEY
from chat.access.usage import MINUTE_SECS, RequestBudget
from chat.api.middleware.error_views import ErrorPage, is_page
from chat.api.middleware.request_metrics import count_request
from chat.api.openai.errors import in_clients_form
from chat.errors import BodyTooLarge, ChatError, InvalidRequest, MethodNotAllowed, NotFound
from chat.schemas.error_bodies import as_chat_error, error_object, error_response
from inference.runtime import log_context

TRANSCRIPTS_PREFIX = "/index/"
MAX_LENGTH_DIGITS = 18
REQUEST_ID_HEADER = "X-Request-ID"
# Errors of the web server, which refuses what Django never sees.
SERVER_CODES = {
    HTTPStatus.BAD_REQUEST: "invalid_request",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "headers_too_large",
}
Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class JsonErrorMiddleware:
    """Works in the asynchronous chain without a thread of its own, and in the synchronous one of tests."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        request_id = log_context.safe_request_id(request.headers.get(REQUEST_ID_HEADER))
        if self.is_async:
            return self._answer_async(request, request_id)
        began = time.monotonic()
        with log_context.bound(request=request_id):
            response = refusal(request) or in_json(request, cast(HttpResponseBase, self.get_response(request)))
            response = in_clients_form(request.path_info, response)
        count_request(request, response, began)
        return with_headers(request, response, request_id)

    async def _answer_async(self, request: HttpRequest, request_id: str) -> HttpResponseBase:
        # For the rest of the task, which is this request's own: a stream's body is produced after this has returned.
        log_context.bind(request=request_id)
        began = time.monotonic()
        response: HttpResponseBase | None = refusal(request)
        response = response or in_json(request, await cast(Awaitable[HttpResponseBase], self.get_response(request)))
        response = in_clients_form(request.path_info, response)
        count_request(request, response, began)
        return with_headers(request, response, request_id)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer errors of views that are not DRF's; also with DEBUG, when Django would show its settings."""
        return None if is_page(request.path_info) else error_response(as_chat_error(exception))


def with_headers(request: HttpRequest, response: HttpResponseBase, request_id: str) -> HttpResponseBase:
    """Add the headers that every response has: its id, its caller's limit of requests, and that it is not stored."""
    headers = response.headers
    headers[REQUEST_ID_HEADER] = request_id
    headers.setdefault("Cache-Control", "no-store")
    budget = request.META.get(BUDGET_KEY)
    if isinstance(budget, RequestBudget):
        headers["RateLimit-Policy"] = f'"requests";q={budget.limit};w={MINUTE_SECS}'
        headers["RateLimit"] = f'"requests";r={budget.remaining};t={budget.resets_in_secs}'
    return response


def refusal(request: HttpRequest) -> HttpResponse | None:
    """Return the error of a request whose Host, path, cookies or length are malformed, else None."""
    try:
        request.get_host()
    except DisallowedHost as error:
        # Django would answer with a page when debugging, and log a traceback for every stray scanner.
        return error_response(as_chat_error(error))
    # No database stores a NUL; a quoted cookie may hide one.
    if "\0" in request.path_info:
        return error_response(NotFound("nothing is served at a path with a NUL"))
    if any("\0" in value for value in request.COOKIES.values()):
        return error_response(InvalidRequest("a cookie holds a NUL"))
    length = request.META.get("CONTENT_LENGTH") or "0"
    # int() takes digits of other scripts, and raises for more than 4,300.
    if not (length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
        return error_response(InvalidRequest("the Content-Length header is not a length"))
    max_bytes = largest_body(request.path_info)
    if int(length) <= max_bytes or is_page(request.path_info):
        return None
    return error_response(body_too_large(max_bytes))


def largest_body(path: str) -> int:
    """Return the most bytes that a request to the path may have."""
    # A transcript of hours comes in one body.
    return settings.TRANSCRIPT_MAX_BYTES if path.startswith(TRANSCRIPTS_PREFIX) else settings.REQUEST_MAX_BYTES


def body_too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {max_bytes} bytes", extra={"max_bytes": max_bytes})


def in_json(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Render errors of other parts (405 of Django's decorators, debugging pages) as JSON, and answer OPTIONS."""
    if request.method == "OPTIONS" and response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = response.headers.get("Allow", "")
        return HttpResponse(status=HTTPStatus.NO_CONTENT, headers={"Allow": f"{methods}, OPTIONS"})
    is_error = response.status_code >= HTTPStatus.BAD_REQUEST
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    if not is_error or is_json or is_page(request.path_info) or isinstance(response, ErrorPage):
        return response
    error = _of_status(response.status_code)
    replacement = error_response(error)
    if "Allow" in response.headers:
        replacement.headers["Allow"] = response.headers["Allow"]
    return replacement


def _of_status(status: int) -> ChatError:
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed("this method is not served here")
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "error"
    error = ChatError(phrase.lower(), code=phrase.lower().replace(" ", "_"))
    error.status = status
    return error


def server_error_body(status: int, message: str) -> bytes:
    """Return the body of an error that the web server answers with by itself."""
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    error = ChatError(
        "something went wrong here; it was logged" if is_ours else message,
        code=_of_status(status).code if status not in SERVER_CODES else SERVER_CODES[HTTPStatus(status)],
    )
    return json.dumps({"error": error_object(error)}).encode()
