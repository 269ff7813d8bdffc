"""GET /: the chat page for a browser; for programs the name of the service and its endpoints."""

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from chat.api.json_response import json_response
from chat.api.openapi.operations import OPERATIONS
from chat.pages.rendering import wants_page
from chat.pages.views import chat_page
from chat.schemas.service_answers import ServiceIndexAnswer
from chat.streaming.background import in_thread

# OpenAPI describes no WebSockets, and pages are no part of the interface.
ENDPOINTS = {f"{operation.method.upper()} {operation.path}": operation.summary for operation in OPERATIONS} | {
    "WS /ws/chat": "Several answers over one WebSocket",
    "GET /admin/": "The administration",
}


async def view(request: HttpRequest) -> HttpResponse:
    if wants_page(request):
        return await in_thread(chat_page, request)
    response = json_response(ServiceIndexAnswer(service="Gemma Service", endpoints=ENDPOINTS))
    patch_vary_headers(response, ["Accept"])
    return response
