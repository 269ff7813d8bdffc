"""Paths of WebSockets and their consumers."""

from collections.abc import Awaitable, Callable
from typing import Any

from channels.auth import AuthMiddlewareStack
from django.urls import URLPattern, re_path

from chat.api.websocket import ChatConsumer


async def nothing_here(scope: object, receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Refuse a connection to an unknown path, for which the router would raise."""
    await send({"type": "websocket.close", "reason": "no WebSocket is served at this path"})


# The session's user is looked up here; the consumer checks all other credentials.
websocket_urlpatterns: list[URLPattern] = [
    re_path(r"^ws/chat/?$", AuthMiddlewareStack(ChatConsumer.as_asgi()), name="ws-chat"),
    re_path(r"", nothing_here),  # type: ignore[arg-type]
]
