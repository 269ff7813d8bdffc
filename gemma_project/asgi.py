"""The ASGI application: HTTP by Django, WebSockets by Channels consumers."""

import os
from importlib.util import find_spec

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
django_application = get_asgi_application()

if find_spec("chat.routing"):
    from chat.routing import websocket_urlpatterns
else:
    websocket_urlpatterns = []

application = ProtocolTypeRouter({"http": django_application, "websocket": URLRouter(websocket_urlpatterns)})
