"""Requests that arrive together become turns one after the other: the first is with the model while the next is made.

Checking and storing a request is Python, which a process runs on one core: side by side, sixteen would change places
every few milliseconds and all be ready last (270M, 2 cores: the first after 0.25 s, alone after 0.06).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

# A turn is made in 20 ms. What hangs longer (a broker, a database) must not stop those that come after it.
PATIENCE_SECS = 1.0

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


@asynccontextmanager
async def in_arrival_order() -> AsyncIterator[None]:
    """Runs its body alone on this event loop, in order of arrival; after PATIENCE_SECS beside others."""
    place = _places.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    is_alone = await _taken(place)
    try:
        yield
    finally:
        if is_alone:
            place.release()


async def _taken(place: asyncio.Lock) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_SECS):
            await place.acquire()
    except TimeoutError:
        return False
    return True
