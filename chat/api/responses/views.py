"""/v1/responses: create, read, stream, cancel and delete responses, and list their input."""

from dataclasses import replace
from functools import partial

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.json_response import json_response
from chat.api.responses.errors import openai_fields
from chat.api.responses.queries import item_page_of, stream_query_of
from chat.api.responses.references import with_stored_items
from chat.api.responses.stored import finished_output, stored_response
from chat.api.responses.streams import response_stream
from chat.api.turn_requests import (
    AcceptedTurn,
    for_callers,
    has_long_body,
    idempotency_key,
    lines_to_end,
    read_in_thread,
)
from chat.schemas.requests import ChatRequest
from chat.schemas.responses.answers import DeletedResponse, ResponseAnswer
from chat.schemas.responses.bodies import ResponseCall, responses_request
from chat.schemas.responses.identifiers import response_id
from chat.schemas.responses.rendering import ended_response, is_background
from chat.services import turns
from chat.services.responses import deletion, input_items, lookup
from chat.services.served_models import chat_model, require_model
from chat.streaming.admission import in_arrival_order
from chat.streaming.background import in_thread, spawn
from chat.streaming.events import start, stops_when_left
from inference.models import Generation


@for_callers("POST", any_key=True)
async def create(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """POST /v1/responses."""
    call, accepted = await _accept(request, caller)
    if not (call.is_stream or call.is_background):
        return json_response(await _whole(accepted, caller))
    generation = await in_thread(turns.get_generation, caller=caller, generation_id=accepted.turn.generation_id)
    if call.is_stream:
        return response_stream(accepted, generation, caller)
    if accepted.turn.needs_preparation:
        spawn(in_thread(turns.prepare_turn, generation_id=generation.pk))
    return json_response(await in_thread(stored_response, generation))


@for_callers("GET", "DELETE", any_key=True)
async def response(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """GET and DELETE /v1/responses/{name}."""
    generation = await in_thread(lookup.get_response, caller=caller, name=name)
    if request.method == "DELETE":
        await in_thread(deletion.delete_response, caller=caller, generation=generation)
        return json_response(DeletedResponse(id=response_id(generation.pk)))
    query = stream_query_of(request)
    if not query.is_stream:
        return json_response(await in_thread(stored_response, generation))
    stops = stops_when_left(generation.priority, generation.idempotency_key) and not is_background(generation)
    accepted = AcceptedTurn(turns.turn_of(generation), stops)
    return response_stream(accepted, generation, caller, after=query.starting_after)


@for_callers("POST", any_key=True)
async def cancel(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """POST /v1/responses/{name}/cancel: the response, which has ended then; one that ended before stays as it is."""
    generation = await in_thread(lookup.get_response, caller=caller, name=name)
    ended = await lookup.cancelled(caller=caller, generation=generation)
    return json_response(await in_thread(stored_response, ended))


@for_callers("GET", any_key=True)
async def items(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """GET /v1/responses/{name}/input_items."""
    generation = await in_thread(lookup.get_response, caller=caller, name=name)
    return json_response(await in_thread(input_items.item_list, generation, item_page_of(request)))


async def _accept(request: HttpRequest, caller: Caller) -> tuple[ResponseCall, AcceptedTurn]:
    is_long = has_long_body(request)
    async with in_arrival_order(is_long=is_long):
        call, body = await read_in_thread(request, partial(_read, caller=caller))
        key = idempotency_key(request)
        stops = stops_when_left(body.priority, key) and not call.is_background
        begin = partial(turns.start_turn, caller=caller, request=body, idempotency_key=key, request_digest=body.digest)
        with openai_fields():
            turn = await start(begin, caller=caller, stops=stops, is_long=is_long)
    return call, AcceptedTurn(turn, stops)


def _read(request: HttpRequest, *, caller: Caller) -> tuple[ResponseCall, ChatRequest]:
    call, body = responses_request(with_stored_items(read_object(request), caller))
    model = require_model(call.model, chat_model())
    return call, replace(body, response={**body.response, "model": model})


async def _whole(accepted: AcceptedTurn, caller: Caller) -> ResponseAnswer:
    lines = [line async for line in lines_to_end(accepted, caller)]
    generation_id = accepted.turn.generation_id
    generation: Generation = await in_thread(turns.get_generation, caller=caller, generation_id=generation_id)
    return ended_response(generation, lines[-1], finished_output(generation, lines))
