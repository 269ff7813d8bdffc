"""POST /v1/messages: a chat turn in Anthropic's form; POST /v1/messages/count_tokens."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase

from chat.access.callers import Caller
from chat.api.anthropic.event_writer import MessageEventWriter
from chat.api.anthropic.stop_search import StopSearch
from chat.api.body_parsing import read_object
from chat.api.json_response import json_response
from chat.api.openai.streams import status_comment
from chat.api.sse import HEADERS
from chat.api.turn_requests import (
    AcceptedTurn,
    failure,
    for_callers,
    has_long_body,
    idempotency_key,
    lines_to_end,
    read_in_thread,
    restarting,
)
from chat.errors import ChatError
from chat.schemas.anthropic.answers import MessageAnswerBody, TokenCountAnswer
from chat.schemas.anthropic.bodies import MessagesCall, count_tokens_request, messages_request
from chat.schemas.anthropic.errors import REQUEST_ID_HEADER, AnthropicErrorAnswer
from chat.schemas.anthropic.rendering import begun_message, whole_message
from chat.schemas.requests import ChatRequest
from chat.schemas.responses.output import GrowingOutput
from chat.services import turns
from chat.services.prompt_texts import count_prompt_tokens
from chat.services.served_models import chat_model, require_model
from chat.streaming.admission import in_arrival_order
from chat.streaming.background import in_long_thread, in_thread
from chat.streaming.events import WireLine, lines_and_pings, start, stops_when_left
from inference.config.tokenizer import get_tokenizer
from inference.runtime import log_context


@for_callers("POST", any_key=True)
async def messages(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    call, model, accepted = await _accept(request, caller)
    headers = {REQUEST_ID_HEADER: log_context.request_id()}
    if call.is_stream:
        events = _events(call, model, accepted, caller)
        return StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8", headers=HEADERS | headers)
    return json_response(await _whole(call, model, accepted, caller), headers=headers)


@for_callers("POST", any_key=True)
async def count_tokens(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    run = in_long_thread if has_long_body(request) else in_thread
    count = await run(_count, request, caller)
    return json_response(TokenCountAnswer(input_tokens=count), headers={REQUEST_ID_HEADER: log_context.request_id()})


def _count(request: HttpRequest, caller: Caller) -> int:
    call, body = count_tokens_request(read_object(request))
    require_model(call.model, chat_model())
    return count_prompt_tokens(body, caller=caller)


async def _accept(request: HttpRequest, caller: Caller) -> tuple[MessagesCall, str, AcceptedTurn]:
    is_long = has_long_body(request)
    async with in_arrival_order(is_long=is_long):
        call, body, model = await read_in_thread(request, _read)
        key = idempotency_key(request)
        stops = call.is_stream or stops_when_left(body.priority, key)
        begin = partial(turns.start_turn, caller=caller, request=body, idempotency_key=key, request_digest=body.digest)
        turn = await start(begin, caller=caller, stops=stops, is_long=is_long)
    return call, model, AcceptedTurn(replace(turn, has_token_ids=bool(call.stops)), stops)


def _read(request: HttpRequest) -> tuple[MessagesCall, ChatRequest, str]:
    call, body = messages_request(read_object(request))
    return call, body, require_model(call.model, chat_model())


async def _whole(call: MessagesCall, model: str, accepted: AcceptedTurn, caller: Caller) -> MessageAnswerBody:
    output = GrowingOutput(may_call=call.may_call)
    stop = StopSearch(call.stops)
    last: WireLine = {}
    async with aclosing(lines_to_end(accepted, caller)) as source:
        async for line in source:
            stop.push(line)
            list(output.push(line.get("thought", ""), line["token"]))
            last = line
    list(output.finish())
    sequence = stop.find(get_tokenizer().vocabulary)
    return whole_message(accepted.turn.generation_id, model=model, output=output, last=last, stop=sequence)


async def _events(call: MessagesCall, model: str, accepted: AcceptedTurn, caller: Caller) -> AsyncIterator[bytes]:
    writer = MessageEventWriter(accepted.turn.generation_id, may_call=call.may_call, stops=call.stops)
    is_over = False
    try:
        async with aclosing(lines_and_pings(accepted.turn, caller=caller, stops=accepted.stops)) as source:
            async for line in source:
                is_over = bool(line and line["done"])
                yield await _chunk(writer, model, accepted, caller, line)
        if not is_over:
            raise restarting(str(accepted.turn.generation_id))
    except ChatError as error:
        # The status is out; a client knows by this event that the answer is not whole.
        yield writer.broken(AnthropicErrorAnswer.of(error, log_context.request_id()))


async def _chunk(
    writer: MessageEventWriter, model: str, accepted: AcceptedTurn, caller: Caller, line: WireLine | None
) -> bytes:
    if line is None:
        return writer.ping()
    if line["done"]:
        if "error" in line:
            raise failure(line["error"], str(accepted.turn.generation_id))
        return writer.ended(line)
    if "generation_id" in line:
        generation_id, conversation_id = accepted.turn.generation_id, line["conversation_id"]
        generation = await in_thread(turns.get_generation, caller=caller, generation_id=generation_id)
        n_prompt = generation.n_prompt_tokens
        message = begun_message(generation_id, model=model, n_prompt=n_prompt, conversation_id=conversation_id)
        return writer.started(message)
    return status_comment(line) if "status" in line else writer.token(line)
