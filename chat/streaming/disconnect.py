"""Disconnect: count the readers of a running answer, and cancel it a grace period after the last one left.

Knows no HTTP. The web process waits out the grace period: one that dies cancels nothing, and its readers expire.
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
from compat.half_close import secs_since_half_close
from inference.errors import StoreUnavailable
from inference.runtime.redis_client import async_client
from inference.token_stream import subscribers

log = logging.getLogger(__name__)

# Time for the client of an accepted request to start reading its answer.
FIRST_READ_SECS = 2.0
REFRESH_SECS = subscribers.READER_TTL_SECS / 4


@dataclass
class ShutdownFlag:
    """Set when this web process is about to end: readers that leave then did not choose to."""

    is_set: bool = False


shutdown = ShutdownFlag()
# Generations accepted here that have had no reader yet.
_unread: set[UUID] = set()


@dataclass
class ReaderHandle:
    """A counted reader. ``is_over``: it got the last line, so that its disconnect cancels nothing."""

    generation_id: UUID
    reader_id: str
    client: "subscribers.Client"
    is_over: bool = False

    async def count(self) -> None:
        """Raises StoreUnavailable."""
        await subscribers.refresh(self.generation_id, self.reader_id, self.client)

    async def keep_counted(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECS)
            with suppress(StoreUnavailable):  # repeated before the entry expires
                await self.count()


@asynccontextmanager
async def counted_reader(generation_id: UUID, *, caller: Caller, stops: bool) -> AsyncIterator[ReaderHandle]:
    """Count a reader while the body runs; with ``stops`` an answer without readers is cancelled after the grace."""
    _unread.discard(generation_id)
    reader = ReaderHandle(generation_id, subscribers.new_id(), async_client())
    refreshing: asyncio.Task[None] | None = None
    # From here on: a client that leaves while it is being counted must stop its answer, too.
    try:
        try:
            await reader.count()
        except StoreUnavailable as error:
            # An uncounted reader is better than a refused one: the database may still serve the answer.
            log.warning("reader not counted yet generation=%s error=%s", reader.generation_id, error)
        refreshing = asyncio.create_task(reader.keep_counted())
        yield reader
    finally:
        if refreshing is not None:
            refreshing.cancel()
        # Not awaited: the connection of a client that left must not wait for Redis.
        grace_secs = max(0.0, settings.STREAM_GRACE_SECS - secs_since_half_close())
        spawn(_leave(reader, caller, grace_secs if stops and not reader.is_over else None))


def expect_reader(generation_id: UUID, *, caller: Caller) -> None:
    """Cancel an accepted turn whose client disconnects before it reads the first line."""
    _unread.add(generation_id)

    async def stop_if_never_read() -> None:
        await asyncio.sleep(FIRST_READ_SECS)
        # A reader that came and left has a grace period of its own.
        if generation_id in _unread:
            _unread.discard(generation_id)
            await _stop_unless_read(generation_id, caller, settings.STREAM_GRACE_SECS)

    spawn(stop_if_never_read())


async def _leave(reader: ReaderHandle, caller: Caller, grace_secs: float | None) -> None:
    """Uncount the reader, and cancel its answer after the grace period; None for an answer that continues."""
    async with reader.client:
        with suppress(StoreUnavailable):  # the entry expires
            await subscribers.leave(reader.generation_id, reader.reader_id, reader.client)
    if grace_secs is not None:
        await _stop_unless_read(reader.generation_id, caller, grace_secs)


async def _stop_unless_read(generation_id: UUID, caller: Caller, grace_secs: float) -> None:
    try:
        moves = await subscribers.moves(generation_id)
        await asyncio.sleep(grace_secs)
        # A reader that came and left meanwhile started a grace period of its own.
        if shutdown.is_set or await subscribers.count(generation_id) or await subscribers.moves(generation_id) != moves:
            return
    except StoreUnavailable as error:
        log.warning("readers unknown, generation continues generation=%s error=%s", generation_id, error)
        return
    with suppress(Conflict, NotFound):  # it ended, or was deleted
        await in_thread(turns.cancel, caller=caller, generation_id=generation_id)
        log.info("cancelled after disconnect generation=%s", generation_id)
