"""Which WebSocket path leads to which consumer; knows nothing else."""

from django.urls import URLPattern

websocket_urlpatterns: list[URLPattern] = []
