"""Django's and WhiteNoise's middleware for the event loop: for the API nothing in it blocks.

Django would run every step of every middleware in a thread, and WhiteNoise, which is synchronous, keep one for as long
as the request takes: 14 changes of thread and a thread of its own for each request. People's pages still go that way.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
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
from whitenoise.middleware import WhiteNoiseMiddleware

from chat.api.middleware.error_views import is_page

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class InLoop(MiddlewareMixin):
    """A middleware whose steps never wait, as long as no session was changed: the API changes none."""

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        if is_page(request.path):
            return await super().__acall__(request)
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
        return await sync_to_async(look)(request, *view) if is_page(request.path) else look(request, *view)


class Authentication(InLoop, AuthenticationMiddleware):
    pass


class Messages(InLoop, MessageMiddleware):
    pass


class FrameOptions(InLoop, XFrameOptionsMiddleware):
    pass


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]  # it has no type hints
    """The admin's files; whatever is none of them goes on without a change of thread."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Answer]) -> None:
        super().__init__(get_response)
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Answer:
        return self._in_loop(request) if self.is_async else super().__call__(request)

    async def _in_loop(self, request: HttpRequest) -> HttpResponseBase:
        file = None
        if request.path_info.startswith(self.static_prefix):
            file = await sync_to_async(self.find_file if self.autorefresh else self.files.get)(request.path_info)
        answer = await self.get_response(request) if file is None else self.serve(file, request)
        return cast(HttpResponseBase, answer)
