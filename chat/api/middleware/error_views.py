"""Django's own error pages as JSON: the handlers of the root URL configuration, and CSRF_FAILURE_VIEW."""

from django.http import HttpRequest, HttpResponse
from django.views import csrf, defaults

from chat.errors import ChatError, Forbidden, NotFound, quoted
from chat.schemas.error_bodies import as_chat_error, error_response

# The admin's pages keep Django's own errors.
ADMIN_PREFIX = "/admin/"
# One path below it belongs to the GPU coordinator's protocol.
NO_PAGE = "/admin/force-reset"


def is_page(path: str) -> bool:
    """Return whether the path is one of the admin's pages."""
    return path.startswith(ADMIN_PREFIX) and not path.startswith(NO_PAGE)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request.path):
        return defaults.bad_request(request, exception)
    return error_response(as_chat_error(exception))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request.path):
        return defaults.permission_denied(request, exception)
    return error_response(as_chat_error(exception))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request.path):
        return defaults.page_not_found(request, exception)
    return error_response(NotFound(f"nothing is served at {quoted(request.path)}"))


def server_error(request: HttpRequest) -> HttpResponse:
    if is_page(request.path):
        return defaults.server_error(request)
    return error_response(ChatError("something went wrong here; it was logged"))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    if is_page(request.path):
        return csrf.csrf_failure(request, reason)
    return error_response(Forbidden("the CSRF token is missing or wrong", code="csrf_failed"))
