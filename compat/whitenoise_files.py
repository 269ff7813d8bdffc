"""WhiteNoise in the event loop. Internals used: ``find_file``, ``files``, ``static_prefix``, ``serve``."""

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware

Answer = HttpResponseBase | Awaitable[HttpResponseBase]


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]  # it has no type hints
    """Serve the admin's files; every other request goes on without a change of thread.

    WhiteNoise itself is synchronous: Django would keep a thread for it as long as each request takes.
    """

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
