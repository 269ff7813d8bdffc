"""Django's middleware in the event loop: for the API none of its steps blocks.

Django would run every step of every middleware in a thread: 14 changes of thread for each request. The admin's pages
still take that way. WhiteNoise: ``compat.whitenoise_files``.
"""

from collections.abc import Awaitable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.deprecation import MiddlewareMixin

from chat.api.middleware.error_views import is_page


class InLoop(MiddlewareMixin):
    """A middleware whose steps never wait, as long as no session was changed: the API changes none."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if iscoroutinefunction(self.get_response) and not is_page(request.path_info):
            return self._in_loop(request)
        return super().__call__(request)

    async def _in_loop(self, request: HttpRequest) -> HttpResponseBase:
        before, after = getattr(self, "process_request", None), getattr(self, "process_response", None)
        response = before(request) if before else None
        response = response or await cast(Awaitable[HttpResponseBase], self.get_response(request))
        return after(request, response) if after else response


class Security(InLoop, SecurityMiddleware):
    pass


class Sessions(InLoop, SessionMiddleware):
    pass


class Common(InLoop, CommonMiddleware):
    pass


class Csrf(InLoop, CsrfViewMiddleware):
    async def process_view(self, request: HttpRequest, *view: Any) -> HttpResponseBase | None:  # type: ignore[override]  # noqa: ANN401
        look = super().process_view
        return await sync_to_async(look)(request, *view) if is_page(request.path_info) else look(request, *view)


class Authentication(InLoop, AuthenticationMiddleware):
    pass


class Messages(InLoop, MessageMiddleware):
    pass


class FrameOptions(InLoop, XFrameOptionsMiddleware):
    pass
