"""Django's ASGI handler and its logging of responses.

Internals used: ``ASGIHandler.listen_for_disconnect``, ``response._has_been_logged``, ``Model._state.fields_cache``.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from django.core.handlers.asgi import ASGIHandler
from django.db.models import Model
from django.http.response import HttpResponseBase

Response = TypeVar("Response", bound=HttpResponseBase)


class QuietHandler(ASGIHandler):
    """Django's handler, without an exception that nothing retrieves.

    A client that leaves makes ``listen_for_disconnect`` raise. When the server ends at that moment, the request that
    would have retrieved the exception is cancelled already, and asyncio logs a traceback for every open stream. The
    handler waits for the end of this method and needs no more.
    """

    async def listen_for_disconnect(self, receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        await receive()


def without_log_line(response: Response) -> Response:
    """Keep Django from logging a response with an error status that is a normal outcome."""
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def is_loaded(instance: Model, relation: str) -> bool:
    """Return whether the related object is in memory, so that reading it costs no query."""
    return relation in instance._state.fields_cache
