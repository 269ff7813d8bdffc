"""The ASGI application: HTTP by Django, WebSockets by Channels consumers."""

import os
from importlib.util import find_spec

import django
from channels.routing import ProtocolTypeRouter, URLRouter

from compat.django_http import QuietHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
# As django.core.asgi.get_asgi_application does; it builds Django's own handler.
django.setup(set_prefix=False)

if find_spec("chat.api.websocket_routes"):
    from chat.api.websocket_routes import websocket_urlpatterns
else:
    websocket_urlpatterns = []

application = ProtocolTypeRouter({"http": QuietHandler(), "websocket": URLRouter(websocket_urlpatterns)})
