"""Who is reading a running answer, and what happens when the last reader leaves: a grace, then it is stopped.

Knows nothing of HTTP. The waiting happens in the web process: one that dies cancels nothing, and its readers expire.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from chat.access.callers import Caller
from chat.errors import Conflict, NotFound
from chat.services import turns
from chat.streaming.background import in_thread, spawn
from inference.errors import StoreUnavailable
from inference.runtime.redis_client import async_client
from inference.token_stream import subscribers

logger = logging.getLogger(__name__)

# How long an accepted request may take until it reads its own answer.
ARRIVAL_SECS = 2.0
REFRESH_SECS = subscribers.READER_TTL_SECS / 4


@dataclass
class Closing:
    """Whether this web process is about to end. Readers then leave because of us, not because they want to."""

    begun: bool = False


closing = Closing()
# Accepted here, and nobody has begun to read yet.
_awaited: set[UUID] = set()


@dataclass
class ReaderHandle:
    """One reader's visit. ``is_over``: it has seen the end, so that its leaving stops nothing."""

    generation_id: UUID
    reader_id: str
    client: "subscribers.Client"
    is_over: bool = False


@asynccontextmanager
async def reading(generation_id: UUID, *, caller: Caller, stops: bool) -> AsyncIterator[ReaderHandle]:
    """Counts as a reader inside; ``stops``: nobody left after the grace means that nobody wants the answer."""
    _awaited.discard(generation_id)
    own = ReaderHandle(generation_id, subscribers.new_id(), async_client())
    refreshing: asyncio.Task[None] | None = None
    # From here on, as the client may leave while it is being counted: nobody else would stop its answer.
    try:
        await _join(own)
        refreshing = asyncio.create_task(_refresh(own))
        yield own
    finally:
        if refreshing is not None:
            refreshing.cancel()
        # Not awaited here: a client that left must not hold its connection until Redis has answered.
        spawn(_leave(own, caller, stops and not own.is_over))


def watch_arrival(generation_id: UUID, *, caller: Caller) -> None:
    """For an accepted request whose client may be gone before the first line is read."""
    _awaited.add(generation_id)
    spawn(_stop_unless_awaited(generation_id, caller))


async def _join(own: ReaderHandle) -> None:
    try:
        await subscribers.refresh(own.generation_id, own.reader_id, own.client)
    except StoreUnavailable as error:
        # An uncounted reader is better than a refused one: the answer itself may still come from the database.
        logger.warning("reader of %s is not counted yet: %s", own.generation_id, error)


async def _refresh(own: ReaderHandle) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECS)
        with suppress(StoreUnavailable):  # tried again before it expires
            await subscribers.refresh(own.generation_id, own.reader_id, own.client)


async def _leave(own: ReaderHandle, caller: Caller, stops: bool) -> None:
    async with own.client:
        with suppress(StoreUnavailable):  # it expires by itself
            await subscribers.leave(own.generation_id, own.reader_id, own.client)
    if stops:
        await _stop_unless_read(own.generation_id, caller, settings.STREAM_GRACE_SECS)


async def _stop_unless_awaited(generation_id: UUID, caller: Caller) -> None:
    await asyncio.sleep(ARRIVAL_SECS)
    # A reader who came and left has a grace of its own.
    if generation_id in _awaited:
        _awaited.discard(generation_id)
        await _stop_unless_read(generation_id, caller, settings.STREAM_GRACE_SECS)


async def _stop_unless_read(generation_id: UUID, caller: Caller, grace_secs: float) -> None:
    try:
        moves = await subscribers.moves(generation_id)
        await asyncio.sleep(grace_secs)
        # A reader that came and went meanwhile began a grace of its own: nobody was here for a while is not enough.
        if closing.begun or await subscribers.count(generation_id) or await subscribers.moves(generation_id) != moves:
            return
    except StoreUnavailable as error:
        logger.warning("nobody can tell whether %s is still read, it goes on: %s", generation_id, error)
        return
    with suppress(Conflict, NotFound):  # it has ended, or was deleted
        await in_thread(turns.cancel, caller=caller, generation_id=generation_id)
        logger.info("generation %s was stopped: nobody reads it", generation_id)
