"""The views of a chat turn: ask, stream, resume, cancel, complete a raw prompt.

Each parses, authorises, calls one service and renders; waiting and framing are elsewhere.
"""

import uuid
from collections.abc import Callable

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.keepalive import Body, patient_json
from chat.api.sse import event_stream
from chat.api.turn_requests import Asked, ask_chat, ask_completion, ended, for_callers
from chat.errors import InvalidRequest, NotFound
from chat.schemas import answers
from chat.schemas.identifiers import as_uuid
from chat.services import turns
from chat.streaming.background import in_thread
from chat.streaming.events import resumed
from inference.models import Generation

MAX_AFTER = 2**31


@for_callers("POST")
async def chat(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /chat: the whole answer at once."""
    # Who asks for the whole answer cannot resume it: with a key, or in a batch, the next attempt finds it complete.
    asked = await ask_chat(request, caller, goes_on_alone=True)
    return await patient_json(_whole(asked, caller, answers.answer))


@for_callers("POST")
async def stream(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /chat/stream: the answer token by token."""
    asked = await ask_chat(request, caller)
    return event_stream(asked.turn, caller, stops=asked.stops)


@for_callers("GET")
async def resume(request: HttpRequest, caller: Caller, generation_id: str) -> HttpResponseBase:
    """GET /chat/stream/{generation_id}: what comes after the last token that the client has."""
    turn, stops = await in_thread(resumed, caller=caller, generation_id=existing(generation_id))
    return event_stream(turn, caller, after=_after(request), stops=stops)


@for_callers("POST")
async def cancel(request: HttpRequest, caller: Caller, generation_id: str) -> HttpResponseBase:
    """POST /api/generations/{id}/cancel."""
    generation = await in_thread(turns.cancel, caller=caller, generation_id=existing(generation_id))
    return JsonResponse({"generation_id": str(generation.pk), "status": generation.status})


@for_callers("POST")
async def generate(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /generate: a raw prompt, no template, nothing kept."""
    asked = await ask_completion(request, caller)
    return await patient_json(_whole(asked, caller, answers.completion))


async def _whole(asked: Asked, caller: Caller, render: Callable[[Generation], Body]) -> Body:
    return await in_thread(render, await ended(asked, caller))


def existing(text: str) -> uuid.UUID:
    """The id in a path. Raises NotFound: what is no UUID names nothing."""
    value = as_uuid(text)
    if value is None:
        raise NotFound("no such generation")
    return value


def _after(request: HttpRequest) -> int:
    # The header comes from a client that reconnects and knows more than the address it was first given.
    text = request.headers.get("Last-Event-ID") or request.GET.get("after") or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_AFTER)) or int(text) > MAX_AFTER:
        raise InvalidRequest("must be the id of an event", field="after")
    return int(text)
