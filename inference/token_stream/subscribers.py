"""The readers of a generation, counted in Redis, so that the departure of the last one is noticed.

A reader that stops refreshing (its web process died) expires after ``READER_TTL_SECS`` by Redis's clock.
"""

import secrets
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import UNAVAILABLE_ERRORS, async_client, moves_key, readers_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

    Client = Redis[bytes]

READER_TTL_SECS = 10  # refresh about every two seconds
MOVES_TTL_SECS = 60  # beyond the grace, within which the count is compared

# KEYS: readers, moves. ARGV: reader, ttl, ttl of moves. A sorted set of readers by expiry, and a count of arrivals and
# departures.
PRESENT = """
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
if redis.call('ZADD', KEYS[1], seconds + ARGV[2], ARGV[1]) == 1 then
  redis.call('INCR', KEYS[2])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
LEAVE = """
local now = redis.call('TIME')
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('INCR', KEYS[2])
  redis.call('EXPIRE', KEYS[2], ARGV[3])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', tonumber(now[1]) + tonumber(now[2]) / 1e6)
return redis.call('ZCARD', KEYS[1])
"""
MOVES = "return redis.call('GET', KEYS[2]) or 0"


def new_id() -> str:
    """A new reader's id."""
    return secrets.token_hex(8)


async def refresh(generation_id: UUID, reader_id: str, client: "Client | None" = None) -> None:
    """Register the reader for READER_TTL_SECS. Raises StoreUnavailable, as all functions here.

    A caller that refreshes repeatedly passes a ``client`` of its event loop: connecting costs more than the command.
    """
    await _run(PRESENT, generation_id, reader_id, client)


async def leave(generation_id: UUID, reader_id: str, client: "Client | None" = None) -> int:
    """Remove the reader; returns how many remain."""
    return await _run(LEAVE, generation_id, reader_id, client)


async def count(generation_id: UUID) -> int:
    return await _run(LEAVE, generation_id, "")


async def moves(generation_id: UUID) -> int:
    """The count of arrivals and departures: while it is unchanged, the set of readers is, too."""
    return await _run(MOVES, generation_id, "")


async def _run(script: str, generation_id: UUID, reader_id: str, client: "Client | None" = None) -> int:
    if client is None:
        async with async_client() as short_lived:
            return await _run(script, generation_id, reader_id, short_lived)
    try:
        keys = (readers_key(generation_id), moves_key(generation_id))
        moves_ttl_secs = int(settings.STREAM_GRACE_SECS) + MOVES_TTL_SECS
        arguments = (reader_id, READER_TTL_SECS, moves_ttl_secs)
        return int(await client.eval(script, 2, *keys, *arguments))  # type: ignore[no-untyped-call]
    except UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"The readers cannot be counted: {error}") from error
