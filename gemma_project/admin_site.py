"""The site of the admin: Django's own with limited logins, and the page that makes the first user."""

import logging
from collections.abc import Callable
from functools import update_wrapper
from itertools import chain
from typing import TYPE_CHECKING, TypeVar, cast

from django.conf import settings
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME as SELECTED
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import UserCreationForm
from django.db import transaction
from django.db.models import BinaryField, Model
from django.forms import ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.crypto import constant_time_compare
from django.utils.decorators import method_decorator
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from chat.access import login_limit
from chat.api.middleware.error_views import error_page
from chat.errors import ChatError
from chat.schemas.error_bodies import headers_of
from gemma_project.secret_files import read_if_there

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)

View = TypeVar("View", bound=Callable[..., HttpResponseBase])
Response = TypeVar("Response", bound=HttpResponseBase)


class LimitedLoginForm(AdminAuthenticationForm):
    """Counts failed logins as the API does; ``refusal`` is the reason when no password was checked."""

    refusal: ChatError | None = None

    def clean(self) -> dict[str, object]:
        username = str(self.cleaned_data.get("username") or "")
        # Django's test of a session makes the form without a request.
        if self.request is None:
            return super().clean()
        try:
            with login_limit.attempt(self.request, username):
                return super().clean()
        except ChatError as error:
            self.refusal = error
            raise ValidationError(error.message, code=error.code) from error


# Django's own scripts and styles are files, and ours are.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


class GemmaAdminSite(AdminSite):
    login_form = LimitedLoginForm
    index_template = "admin/front_page.html"
    logout_template = "admin/signed_out.html"

    def login(self, request: HttpRequest, extra_context: dict[str, object] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if isinstance(form, LimitedLoginForm) and form.refusal is not None:
            response.status_code = form.refusal.status
            for name, value in headers_of(form.refusal).items():
                response.headers[name] = value
        return _with_policy(response)

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        guarded = super().admin_view(view, cacheable)
        model_admin = getattr(view, "__self__", None)
        model = model_admin.model if isinstance(model_admin, ModelAdmin) else None

        def with_policy(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
            # Django's lists and actions would pass these on to the database, which raises for them.
            if holds_nul(request) or (model is not None and names_nothing(request, model)):
                return _with_policy(error_page(request, 400))
            return _with_policy(guarded(request, *args, **kwargs))

        return cast("View", update_wrapper(with_policy, guarded))

    def index(self, request: HttpRequest, extra_context: dict[str, object] | None = None) -> TemplateResponse:
        # Its package registers pages at this site, and so cannot be imported before the site is made.
        front_page_context = import_string("chat.admin.front_page.front_page_context")
        return super().index(request, {**front_page_context(request), **(extra_context or {})})

    def get_urls(self) -> list[URLResolver | URLPattern]:
        return [path("first-user/<str:token>/", self.first_user, name="first_user"), *super().get_urls()]

    @method_decorator([never_cache, csrf_protect])
    def first_user(self, request: HttpRequest, token: str) -> HttpResponse:
        """Make the first operator, for the holder of the link that `serve` prints; not found ever after."""
        expected = read_if_there(settings.FIRST_USER_TOKEN_FILE)
        if expected is None or not constant_time_compare(token, expected) or has_operator():
            raise Http404
        form: UserCreationForm[User] = UserCreationForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            make_operator(form)
            return HttpResponseRedirect(reverse("admin:login"))
        context = {**self.each_context(request), "title": "Make the first user", "form": form}
        return _with_policy(TemplateResponse(request, "admin/first_user.html", context))


def _with_policy(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response


def holds_nul(request: HttpRequest) -> bool:
    """Return whether a name or value of the query or the form holds a NUL, which no database stores."""
    texts = [[name, *values] for fields in (request.GET, request.POST) for name, values in fields.lists()]
    return any("\0" in text for text in chain(*texts))


def names_nothing(request: HttpRequest, model: type[Model]) -> bool:
    """Return whether a list is filtered by a column of bytes, or an action selects by a text that is no id."""
    is_of_bytes = {column.name for column in model._meta.fields if isinstance(column, BinaryField)}
    if any(name.partition("__")[0] in is_of_bytes for name in request.GET):
        return True
    try:
        for text in request.POST.getlist(SELECTED):
            model._meta.pk.to_python(text)
    except ValidationError:
        return True
    return False


def make_operator(form: "UserCreationForm[User]") -> None:
    """Store the user of a valid form, with all rights. Raises Http404 when there was a first one meanwhile."""
    user = form.save(commit=False)
    user.is_staff = user.is_superuser = True
    with transaction.atomic():
        # Of parallel requests with one link the first takes the file away.
        try:
            settings.FIRST_USER_TOKEN_FILE.unlink()
        except FileNotFoundError:
            raise Http404 from None
        user.save()
    log.info("first user made user=%s", user.pk)


def has_operator() -> bool:
    return get_user_model()._default_manager.filter(is_superuser=True).exists()
