"""Which WebSocket path leads to which consumer; knows nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.auth import AuthMiddlewareStack
from django.urls import URLPattern, re_path

from chat.api.websocket import ChatConsumer


async def nothing_here(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Refuses a connection to an unknown path; without it the router would raise for every stray client."""
    await send({"type": "websocket.close"})


# The session's user is looked up here; all other ways to prove who one is are the consumer's.
websocket_urlpatterns: list[URLPattern] = [
    re_path(r"^ws/chat/?$", AuthMiddlewareStack(ChatConsumer.as_asgi()), name="ws-chat"),
    re_path(r"", nothing_here),  # type: ignore[arg-type]
]
