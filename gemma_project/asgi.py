"""The ASGI application: HTTP by Django, WebSockets by Channels consumers."""

import os
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import Any

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.handlers.asgi import ASGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
# As django.core.asgi.get_asgi_application does; it builds Django's own handler.
django.setup(set_prefix=False)

if find_spec("chat.api.websocket_routes"):
    from chat.api.websocket_routes import websocket_urlpatterns
else:
    websocket_urlpatterns = []


class QuietHandler(ASGIHandler):
    """Django's handler, without an exception that nobody fetches.

    Whoever leaves makes ``listen_for_disconnect`` raise. When the server ends at that moment, the request that would
    have fetched the exception has been cancelled already, and asyncio logs a traceback for every open stream. The
    handler waits for the end of this method and asks for no more.
    """

    async def listen_for_disconnect(self, receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        await receive()


application = ProtocolTypeRouter({"http": QuietHandler(), "websocket": URLRouter(websocket_urlpatterns)})
