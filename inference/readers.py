"""Who is reading a generation right now, so that the last one to leave can be noticed.

A reader that stops refreshing (its web process died) is forgotten after ``READER_TTL_SECS``, by Redis's clock.
"""

import secrets
from uuid import UUID

from inference.errors import StoreUnavailable
from inference.redis_client import AWAY, async_client, readers_key

READER_TTL_SECS = 10  # refresh about every two seconds

# KEYS: readers. ARGV: reader, ttl. A sorted set of readers by when they are forgotten.
PRESENT = """
local now = redis.call('TIME')
local seconds = tonumber(now[1]) + tonumber(now[2]) / 1e6
redis.call('ZADD', KEYS[1], seconds + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
LEAVE = """
local now = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', tonumber(now[1]) + tonumber(now[2]) / 1e6)
return redis.call('ZCARD', KEYS[1])
"""


async def join(generation_id: UUID) -> str:
    """Become a reader; returns the id to refresh and leave with. Raises StoreUnavailable, as all here do."""
    reader_id = secrets.token_hex(8)
    await refresh(generation_id, reader_id)
    return reader_id


async def refresh(generation_id: UUID, reader_id: str) -> None:
    await _run(PRESENT, generation_id, reader_id, READER_TTL_SECS)


async def leave(generation_id: UUID, reader_id: str) -> int:
    """Stop reading; returns how many readers remain."""
    return await _run(LEAVE, generation_id, reader_id)


async def count(generation_id: UUID) -> int:
    return await _run(LEAVE, generation_id, "")


async def _run(script: str, generation_id: UUID, *arguments: str | int) -> int:
    # A connection of its own: these calls come from whatever event loop serves the request.
    try:
        async with async_client() as client:
            key = readers_key(generation_id)
            return int(await client.eval(script, 1, key, *arguments))  # type: ignore[no-untyped-call]
    except AWAY as error:
        raise StoreUnavailable(f"readers cannot be counted: {error}") from error
