"""Django's own error pages: JSON for programs; a page in the admin, at the other pages, and for a browser that asks for
a path where nothing is served. The handlers of the root URL configuration, and CSRF_FAILURE_VIEW."""

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from chat.errors import ChatError, Forbidden, NotFound, quoted
from chat.pages.rendering import page_response, wants_page
from chat.schemas.error_bodies import as_chat_error, error_response

# Sessions begin and end at pages alone.
PAGE_PREFIXES = ("/admin/", "/sign-in", "/sign-out")
# One path below the admin's belongs to the GPU coordinator's protocol.
NO_PAGE = "/admin/force-reset"

TITLES = {
    400: _("This request cannot be read"),
    403: _("You may not see this page"),
    404: _("There is nothing here"),
    500: _("Something went wrong"),
}
ADVICE = {
    400: _("The address or the form that was sent is damaged."),
    403: _("Sign in with an account that may, or go back to the chat."),
    404: _("The address may be mistyped, or what it named was deleted."),
    500: _("It was logged. Trying again in a moment may help."),
}
STALE_FORM = _("The page was open for too long, or cookies are switched off. Go back, reload the page and try again.")


class ErrorPage(HttpResponse):
    """An error that stays a page; errors of other parts become JSON."""


def is_page(path: str) -> bool:
    """Return whether the path is one of the pages that may change a session, those of the admin included."""
    return path.startswith(PAGE_PREFIXES) and not path.startswith(NO_PAGE)


def error_page(request: HttpRequest, status: int, advice: object = None) -> HttpResponse:
    """Return an error as a page with a way back."""
    context = {"title": TITLES[status], "advice": advice or ADVICE[status], "status": status}
    page = page_response(request, "pages/error.html", context, status=status)
    return ErrorPage(page.content, status=status, headers=dict(page.headers))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error_page(request, 400) if is_page(request.path_info) else error_response(as_chat_error(exception))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return error_page(request, 403) if is_page(request.path_info) else error_response(as_chat_error(exception))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_page(request.path_info) or wants_page(request):
        return error_page(request, 404)
    return error_response(NotFound(f"nothing is served at {quoted(request.path_info)}"))


def server_error(request: HttpRequest) -> HttpResponse:
    if is_page(request.path_info):
        return error_page(request, 500)
    return error_response(ChatError("something went wrong here; it was logged"))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    if is_page(request.path_info):
        return error_page(request, 403, STALE_FORM)
    return error_response(Forbidden("the CSRF token is missing or wrong", code="csrf_failed"))
