"""Stored responses of a caller: look up, cancel."""

import asyncio
import time

from chat.access.callers import Caller
from chat.errors import Conflict, NotFound
from chat.schemas.requests import RESPONSE
from chat.schemas.responses.identifiers import generation_id_of
from chat.services import turns
from inference.models import Generation
from inference.runtime.threads import in_thread

# A cancel is obeyed within a step of the model; a worker that is being replaced takes longer.
CANCEL_SECS = 5.0
POLL_SECS = 0.05


def get_response(*, caller: Caller, name: str) -> Generation:
    """Return the generation of a stored response with its message. Raises NotFound, also for one of another owner."""
    generation_id = generation_id_of(name)
    if generation_id is None:
        raise NotFound("there is no such response", field="response_id")
    try:
        generation = turns.get_generation(caller=caller, generation_id=generation_id)
    except NotFound as error:
        raise NotFound("there is no such response", field="response_id") from error
    if RESPONSE not in generation.details or getattr(generation, "message", None) is None:
        raise NotFound("there is no such response", field="response_id")
    return generation


async def cancelled(*, caller: Caller, generation: Generation) -> Generation:
    """Stop a response and return its row, ended unless that takes longer than CANCEL_SECS. One that has ended is
    returned as it is."""
    try:
        generation = await in_thread(turns.cancel, caller=caller, generation_id=generation.pk)
    except Conflict:
        return await in_thread(turns.get_generation, caller=caller, generation_id=generation.pk)
    deadline = time.monotonic() + CANCEL_SECS
    while not generation.is_ended and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECS)
        generation = await in_thread(turns.get_generation, caller=caller, generation_id=generation.pk)
    return generation
