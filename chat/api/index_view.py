"""GET /: the name of the service and its endpoints, for a browser or curl."""

from django.http import HttpRequest, JsonResponse

from chat.api.json_response import json_response
from chat.schemas.service_answers import ServiceIndexAnswer

ENDPOINTS = {
    "POST /chat": "one answer as JSON",
    "POST /chat/stream": "the answer token by token (server-sent events)",
    "GET /chat/stream/{generation_id}": "resume a stream (Last-Event-ID or ?after=)",
    "WS /ws/chat": "several answers over one WebSocket",
    "POST /generate": "complete a raw prompt",
    "POST /api/generations/{id}/cancel": "stop an answer",
    "/api/conversations/": "stored conversations",
    "POST /search/semantic": "search memories (POST /search: the older form)",
    "POST /index/transcript": "bring a transcript in, or replace it",
    "/memory/add, /memory/list, /memory/search, /memory/stats, /memory/{memory_id}": "notes",
    "/transcripts/recent, /transcripts/speakers, /transcripts/count, /transcript/{job_id}": "transcripts",
    "POST /api/token/": "log in (JWT)",
    "POST /api/token/refresh/": "new tokens for a refresh token, once",
    "GET /health": "whether chats can be served",
    "/api/docs/": "all endpoints with their fields (/api/schema/: the same as OpenAPI)",
    "/admin/": "the administration",
}


async def view(request: HttpRequest) -> JsonResponse:
    return json_response(ServiceIndexAnswer(service="Gemma Service", endpoints=ENDPOINTS))
