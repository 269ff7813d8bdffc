"""The chat page, and sign-in and sign-out by session. All of them block."""

from typing import Any

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_POST

from chat.access import login_limit
from chat.access.authentication import caller_of
from chat.access.callers import Caller
from chat.enums import Strategy
from chat.errors import ChatError, Unauthorized
from chat.pages.rendering import page_response
from chat.pages.texts import script_texts

NEXT = "next"
# By the code of an error; others have the error's own words.
PROBLEMS = {
    "login_throttled": _("There were too many failed attempts. Wait a few minutes before the next."),
    "store_unavailable": _("Nobody can sign in at the moment. Try again soon."),
}


def chat_page(request: HttpRequest) -> HttpResponse:
    """Return the chat page, or a redirection to the sign-in page for a caller without credentials."""
    try:
        caller = caller_of(request)
    except Unauthorized:
        return redirect(f"{reverse('pages:sign-in')}?{urlencode({NEXT: request.get_full_path()})}")
    return page_response(request, "pages/chat.html", {"config": page_config(caller), "texts": script_texts})


def page_config(caller: Caller) -> dict[str, Any]:
    """Return the settings that the page's scripts need."""
    return {
        "user": caller.user.get_username() if caller.user else "",
        "isStaff": bool(getattr(caller.user, "is_staff", False)),
        "usesMemories": settings.RAG_DEFAULT,
        "hasOwnMemories": settings.RAG_SERVICE_URL is None,
        "strategies": [strategy.value for strategy in Strategy],
        "maxBytes": settings.REQUEST_MAX_BYTES,
        "maxTranscriptBytes": settings.TRANSCRIPT_MAX_BYTES,
    }


@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """/sign-in/: begin a session for a user with the right password."""
    target = next_page(request)
    form = AuthenticationForm(request)
    problem: object = ""  # one of PROBLEMS is translated when the page is rendered, in its language
    status = 200
    if request.method == "POST":
        form = AuthenticationForm(request, data=request.POST)
        try:
            begin_session(request, form)
            return HttpResponseRedirect(target)
        except Unauthorized:
            pass  # the form has the reason
        except ChatError as error:
            problem, status = PROBLEMS.get(error.code, error.message), error.status
    context = {"form": form, "next": target, "problem": problem, "takes_sessions": not settings.JWT_ONLY}
    return page_response(request, "pages/sign_in.html", context, status=status)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """/sign-out/: end the session."""
    logout(request)
    return redirect(reverse("root"))


def begin_session(request: HttpRequest, form: AuthenticationForm) -> None:
    """Begin a session of the form's user; failed attempts count as those of the API do. Raises Unauthorized,
    TooManyRequests, Unavailable."""
    with login_limit.attempt(request, request.POST.get("username", "")):
        if not form.is_valid():
            raise Unauthorized("no active account has this name and password", code="wrong_credentials")
    login(request, form.get_user())


def next_page(request: HttpRequest) -> str:
    """Return the address to go to after signing in: one of this service, else the chat."""
    target = request.POST.get(NEXT) or request.GET.get(NEXT) or ""
    is_own = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if is_own else reverse("root")
