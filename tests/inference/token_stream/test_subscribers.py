"""Presence of readers: the last one to leave is noticed, one whose process died is forgotten."""

from uuid import uuid4

import pytest
import redis
from django.test import override_settings

from inference.errors import StoreUnavailable
from inference.runtime.redis_client import readers_key
from inference.token_stream import subscribers
from tests.inference.making import joined


async def test_the_last_reader_to_leave_gets_zero() -> None:
    generation = uuid4()
    one, two = await joined(generation), await joined(generation)
    assert one != two
    assert await subscribers.count(generation) == 2
    assert await subscribers.leave(generation, one) == 1
    assert await subscribers.leave(generation, one) == 1
    assert await subscribers.leave(generation, two) == 0


async def test_readers_of_other_generations_do_not_count() -> None:
    mine, other = uuid4(), uuid4()
    reader = await joined(mine)
    await joined(other)
    assert await subscribers.leave(mine, reader) == 0


async def test_a_reader_whose_process_died_is_forgotten(store: "redis.Redis[bytes]") -> None:
    generation = uuid4()
    await joined(generation)
    mine = await joined(generation)
    for member, score in store.zrange(readers_key(generation), 0, -1, withscores=True):
        if member.decode() != mine:
            store.zadd(readers_key(generation), {member: score - subscribers.READER_TTL_SECS - 1})
    assert await subscribers.leave(generation, mine) == 0


async def test_a_refresh_keeps_a_reader_and_brings_a_forgotten_one_back(store: "redis.Redis[bytes]") -> None:
    generation = uuid4()
    mine = await joined(generation)
    store.flushall()
    await subscribers.refresh(generation, mine)
    assert await subscribers.count(generation) == 1
    assert 0 < store.ttl(readers_key(generation)) <= subscribers.READER_TTL_SECS


async def test_without_redis_it_raises() -> None:
    with override_settings(REDIS_URL="unix:///nonexistent/valkey.sock"), pytest.raises(StoreUnavailable):
        await joined(uuid4())


async def test_every_coming_and_going_is_a_move() -> None:
    generation = uuid4()
    assert await subscribers.moves(generation) == 0
    reader = await joined(generation)
    await subscribers.refresh(generation, reader)  # staying is none
    assert await subscribers.moves(generation) == 1
    await subscribers.leave(generation, reader)
    await subscribers.leave(generation, reader)
    assert await subscribers.moves(generation) == 2
