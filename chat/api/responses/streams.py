"""Streams of responses: the lines of a generation become events, from its start or after an event."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from django.http import StreamingHttpResponse

from chat.access.callers import Caller
from chat.api.openai.streams import status_comment
from chat.api.responses.event_writer import NOTHING_SENT, ResponseEventWriter
from chat.api.sse import HEADERS, PING
from chat.api.turn_requests import AcceptedTurn, failure
from chat.errors import ChatError, Unavailable
from chat.schemas.responses.identifiers import response_id
from chat.services import turns
from chat.streaming.background import in_thread
from chat.streaming.events import WireLine, lines_and_pings
from inference.models import Generation


def response_stream(
    accepted: AcceptedTurn, generation: Generation, caller: Caller, *, after: int = NOTHING_SENT
) -> StreamingHttpResponse:
    """The events after number ``after``, as they come."""
    writer = ResponseEventWriter(generation, after=after)
    return StreamingHttpResponse(
        _events(accepted, caller, writer), content_type="text/event-stream; charset=utf-8", headers=HEADERS
    )


async def _events(accepted: AcceptedTurn, caller: Caller, writer: ResponseEventWriter) -> AsyncIterator[bytes]:
    is_over = False
    try:
        # All tokens, also where the client has some: its last events need the whole text.
        async with aclosing(lines_and_pings(accepted.turn, caller=caller, stops=accepted.stops)) as source:
            async for line in source:
                is_over = bool(line and line["done"])
                if events := await _chunk(writer, accepted, caller, line):
                    yield events
        if not is_over:
            raise restarting(accepted)
    except ChatError as error:
        # The status is out; a client knows by this event, and by the missing final one, that the answer is not whole.
        yield writer.broken(error)


def restarting(accepted: AcceptedTurn) -> Unavailable:
    path = f"/v1/responses/{response_id(accepted.turn.generation_id)}?stream=true"
    return Unavailable(f"this process ends; go on at {path} with starting_after", code="restarting", retry_after_secs=1)


async def _chunk(writer: ResponseEventWriter, accepted: AcceptedTurn, caller: Caller, line: WireLine | None) -> bytes:
    if line is None:
        return PING
    if line["done"]:
        # Its row may be gone, or the stream may have failed before the row ended.
        generation_id = accepted.turn.generation_id
        generation = await in_thread(turns.get_generation, caller=caller, generation_id=generation_id)
        if not generation.is_ended or "usage" not in line:
            raise failure(line["error"], str(generation_id))
        return writer.ended(generation, line)
    if "generation_id" in line:
        return writer.started()
    return status_comment(line) if "status" in line else writer.token(line)
