"""Admission: concurrent requests become turns one after the other, so that the first reaches the model early.

Validating and storing a request is Python, which a process runs on one core: in parallel, sixteen requests all finish
late (270M, 2 cores: the first after 0.25 s, one after the other after 0.06 s).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

# Starting a turn takes 20 ms. One that hangs (broker, database) must not block those behind it for longer.
PATIENCE_SECS = 1.0

# Requests with long bodies that are read at a time: the other threads are for everybody else.
MAX_LONG_BODIES = 4

_long_bodies: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def in_arrival_order(*, is_long: bool = False) -> AsyncIterator[None]:
    """Run the body alone on this event loop, in order of arrival; after PATIENCE_SECS beside others.

    A request with a long text (``is_long``) neither waits nor holds up others: its threads are few.
    """
    if is_long:
        yield
        return
    lock = _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    is_locked = await _acquire(lock)
    try:
        yield
    finally:
        if is_locked:
            lock.release()


@asynccontextmanager
async def among_long_bodies(*, is_long: bool = True) -> AsyncIterator[None]:
    """Run the body, which reads a request, beside at most MAX_LONG_BODIES - 1 others of long requests."""
    if not is_long:
        yield
        return
    async with _long_bodies.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_LONG_BODIES)):
        yield


async def _acquire(lock: asyncio.Lock) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_SECS):
            await lock.acquire()
    except TimeoutError:
        return False
    return True
