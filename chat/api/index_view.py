"""GET /: the name of the service and its endpoints, for a browser or curl."""

from django.http import HttpRequest, JsonResponse

from chat.api.json_response import json_response
from chat.api.openapi.operations import OPERATIONS
from chat.schemas.service_answers import ServiceIndexAnswer

# OpenAPI describes no WebSockets, and the admin is no part of the interface.
ENDPOINTS = {f"{operation.method.upper()} {operation.path}": operation.summary for operation in OPERATIONS} | {
    "WS /ws/chat": "Several answers over one WebSocket",
    "GET /admin/": "The administration",
}


async def view(request: HttpRequest) -> JsonResponse:
    return json_response(ServiceIndexAnswer(service="Gemma Service", endpoints=ENDPOINTS))
