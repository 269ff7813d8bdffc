"""The views of a chat turn: answer, stream, resume, cancel, complete a raw prompt."""

import uuid
from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.json_response import json_response
from chat.api.keepalive import Body, patient_json
from chat.api.sse import event_stream
from chat.api.turn_requests import AcceptedTurn, ask_chat, ask_completion, for_callers, wait_for_end
from chat.errors import InvalidRequest, NotFound
from chat.schemas import answers
from chat.schemas.answer_types import CancelAnswer
from chat.schemas.identifiers import as_uuid
from chat.schemas.stream_types import MAX_AFTER
from chat.services import turns
from chat.streaming.background import in_thread
from chat.streaming.events import has_last_line, resumed
from inference.models import Generation, Status

CONTINUE_UNREAD = "continue-unread"  # a preference of the header Prefer (RFC 7240)


@for_callers("POST")
async def chat(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /chat: the whole answer at once."""
    # A whole answer cannot be resumed: with a key, or in a batch, the next attempt finds it complete.
    accepted = await ask_chat(request, caller, goes_on_alone=True)
    return await patient_json(whole_answer(accepted, caller, answers.answer))


@for_callers("POST")
async def stream(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /chat/stream: the answer token by token."""
    accepted = await ask_chat(request, caller, goes_on_alone=may_go_on_unread(request))
    return event_stream(accepted.turn, caller, stops=accepted.stops)


def may_go_on_unread(request: HttpRequest) -> bool:
    """Return whether a streamed answer that has a key shall be made to its end after its reader has left."""
    preferences = request.headers.get("Prefer", "").split(",")
    return CONTINUE_UNREAD in {preference.strip().lower() for preference in preferences}


@for_callers("GET")
async def resume(request: HttpRequest, caller: Caller, generation_id: str) -> HttpResponseBase:
    """GET /chat/stream/{generation_id}: the lines after the last token that the client has."""
    key = existing(generation_id)
    turn, stops = await in_thread(resumed, caller=caller, generation_id=key)
    after = _after(request)
    if after and await in_thread(has_last_line, caller=caller, generation_id=key, after=after):
        # The status that ends a browser's EventSource, which otherwise reconnects for ever.
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return event_stream(turn, caller, after=after, stops=stops)


@for_callers("POST")
async def cancel(request: HttpRequest, caller: Caller, generation_id: str) -> HttpResponseBase:
    """POST /api/generations/{id}/cancel."""
    generation = await in_thread(turns.cancel, caller=caller, generation_id=existing(generation_id))
    return json_response(CancelAnswer(generation_id=str(generation.pk), status=Status(generation.status)))


@for_callers("POST")
async def generate(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /generate: a raw prompt, no template, nothing stored."""
    accepted = await ask_completion(request, caller)
    return await patient_json(whole_answer(accepted, caller, answers.completion))


async def whole_answer(accepted: AcceptedTurn, caller: Caller, render: Callable[[Generation], Body]) -> Body:
    """Return the rendered answer, once it has ended. Raises ChatError when there is none to give."""
    return await in_thread(render, await wait_for_end(accepted, caller))


def existing(text: str) -> uuid.UUID:
    """Return the id in a path. Raises NotFound for a text that is no UUID."""
    value = as_uuid(text)
    if value is None:
        raise NotFound("there is no such generation")
    return value


def _after(request: HttpRequest) -> int:
    # A reconnecting client sends the header, which is newer than its address.
    text = request.headers.get("Last-Event-ID") or request.GET.get("after") or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_AFTER)) or int(text) > MAX_AFTER:
        raise InvalidRequest("after must be the id of a line", field="after")
    return int(text)
