"""The lines of an answer: their order and ids, no repetition after a resume, and one last line."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import pytest
import redis
from django.db import OperationalError
from pytest_django import Settings

from chat.services.turns import Turn
from chat.streaming import events
from chat.streaming.background import in_thread
from chat.streaming.events import WireLine
from inference.enums import FinishReason, Status
from inference.errors import StoreUnavailable
from inference.queue import generations
from inference.queue.results import CANCELLED, TIMED_OUT, Ending, failed
from inference.token_stream import reader
from tests.api.script import LOCAL, STOPPED, make, queued, read, text_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]
WORDS = ["One", " two", "", " three", "…"]


def assert_one_end(lines: list[WireLine]) -> None:
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


async def test_from_the_first_line_to_the_last() -> None:
    turn, worker = await make()
    await in_thread(worker.says, *WORDS)
    await in_thread(worker.ends)
    lines = await read(turn)
    assert lines[0] == {
        "id": 0,
        "token": "",
        "done": False,
        "generation_id": str(turn.generation_id),
        "conversation_id": None,
        "message_id": None,
    }
    assert [(line["id"], line["token"]) for line in lines[1:-1]] == list(enumerate(WORDS, start=1))
    assert_one_end(lines)
    assert lines[-1]["id"] == 6
    assert lines[-1]["finish_reason"] == "stop"
    assert lines[-1]["usage"]["completion_tokens"] == 5
    assert {"sources", "timings", "generation_id"} <= lines[-1].keys()


async def test_a_database_that_is_away_while_one_waits_does_not_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, worker = await make()

    def away(_: UUID) -> generations.QueuePosition:
        raise OperationalError("the server is being restarted")

    monkeypatch.setattr(generations, "queue_position", away)
    reading = asyncio.create_task(read(turn))
    await asyncio.sleep(1.5)  # one look at the queue
    await in_thread(worker.says, "Hello")
    await in_thread(worker.ends)
    lines = await reading
    assert_one_end(lines)
    assert (text_of(lines), lines[-1].get("error")) == ("Hello", None)


async def test_what_was_held_back_is_in_the_last_line() -> None:
    turn, worker = await make()
    await in_thread(worker.says, "Hello", "")
    await in_thread(worker.ends, held_back=" wor")
    lines = await read(turn)
    assert lines[-1]["token"] == " wor"
    assert text_of(lines) == "Hello wor"


async def test_tokens_come_while_the_answer_is_made() -> None:
    turn, worker = await make()
    async with aclosing(events.lines(turn, caller=LOCAL)) as lines:
        assert (await anext(lines))["generation_id"]
        for n, word in enumerate(("a", "b", "c"), start=1):
            await in_thread(worker.says, word)
            line = await asyncio.wait_for(anext(lines), 2)
            assert (line["id"], line["token"]) == (n, word)
        await in_thread(worker.ends)
        assert (await asyncio.wait_for(anext(lines), 2))["done"]


@pytest.mark.parametrize("has_log", [True, False])
async def test_resuming_behind_every_token_loses_and_repeats_nothing(
    has_log: bool, redis_client: "redis.Redis[str]"
) -> None:
    turn, worker = await make()
    await in_thread(worker.says, *WORDS)
    await in_thread(worker.ends, held_back="!")
    if not has_log:  # a reader after the log's expiry reads the database
        redis_client.flushall()
    for after in range(len(WORDS) + 1):
        lines = await read(turn, after)
        assert lines[0]["id"] == after
        assert [line["id"] for line in lines if line["token"] and not line["done"]] == [
            n for n, word in enumerate(WORDS, start=1) if n > after and word
        ]
        assert text_of(lines) == "".join(WORDS[after:]) + "!"
        assert_one_end(lines)


async def test_resuming_behind_what_there_is_still_ends() -> None:
    turn, worker = await make()
    await in_thread(worker.says, "a")
    await in_thread(worker.ends)
    lines = await read(turn, after=1000)
    assert text_of(lines) == ""
    assert_one_end(lines)


OUTCOMES = {
    "stop": (STOPPED, None),
    "length": (Ending(Status.COMPLETE, FinishReason.LENGTH), None),
    "cancelled": (CANCELLED, None),
    "timeout": (TIMED_OUT, "timeout"),
    "crash": (failed("runner_crashed", "the model died of this request"), "runner_crashed"),
}


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("tells_the_log", [True, False])
async def test_every_outcome_has_one_last_line(name: str, tells_the_log: bool) -> None:
    ending, code = OUTCOMES[name]
    turn, worker = await make()
    await in_thread(worker.says, "a", "b")
    # A worker that dies between the row and the log leaves its readers to the row.
    await in_thread(worker.ends, ending, tells_the_log=tells_the_log)
    lines = await read(turn)
    assert_one_end(lines)
    assert text_of(lines) == "ab"
    assert lines[-1].get("error", {}).get("code") == code
    if code is None:
        assert lines[-1]["finish_reason"] == name


async def test_a_generation_cancelled_before_it_began() -> None:
    generation = await in_thread(queued)
    await in_thread(generations.request_cancel, generation_id=generation.pk)
    lines = await read(Turn(generation_id=generation.pk))
    assert_one_end(lines)
    assert lines[-1]["finish_reason"] == "cancelled"


async def test_a_generation_deleted_while_it_is_read() -> None:
    turn, worker = await make()
    async with aclosing(events.lines(turn, caller=LOCAL)) as source:
        lines = [await anext(source)]
        await in_thread(worker.says, "a")
        lines.append(await anext(source))
        await in_thread(generations.delete, generation_ids=[turn.generation_id])
        async with asyncio.timeout(5):
            lines += [line async for line in source]
    assert_one_end(lines)
    assert lines[-1]["error"]["code"] == "not_found"


async def test_redis_away_for_good_is_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow(self: object, generation_id: UUID, after: int) -> AsyncGenerator[None, None]:
        yield None
        raise StoreUnavailable("Redis has been away for 30 s")

    turn, _ = await make()
    monkeypatch.setattr(reader.TokenLogReader, "follow", follow)
    lines = await read(turn)
    assert_one_end(lines)
    error = lines[-1]["error"]
    assert (error["code"], error["generation_id"]) == ("store_unavailable", str(turn.generation_id))


async def test_what_nobody_foresaw_tells_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    async def follow(self: object, generation_id: UUID, after: int) -> AsyncGenerator[None, None]:
        yield None
        raise ZeroDivisionError("at 10.0.0.3")

    turn, _ = await make()
    monkeypatch.setattr(reader.TokenLogReader, "follow", follow)
    lines = await read(turn)
    assert_one_end(lines)
    assert lines[-1]["error"]["code"] == "internal_error"
    assert "10.0.0.3" not in str(lines[-1])


async def test_waiting_is_told() -> None:
    turn, worker = await make()
    await in_thread(worker.waits, "loading")
    await in_thread(worker.waits, "prefill", progress=0.5)
    await in_thread(worker.says, "a")
    await in_thread(worker.waits, "yielding", reason="transcription holds the GPU")
    await in_thread(worker.ends)
    statuses = [(line["id"], line["status"]) for line in await read(turn) if "status" in line]
    assert statuses == [
        (0, {"state": "loading"}),
        (0, {"state": "prefill", "progress": 0.5}),
        (1, {"state": "yielding", "reason": "transcription holds the GPU"}),
    ]


async def test_the_place_in_the_queue_is_told_as_it_changes(settings: Settings) -> None:
    settings.GEMMA_PARALLEL = 2  # no run has been measured: 5 s are assumed
    ahead = await in_thread(queued, owner="user:9")
    generation = await in_thread(queued)
    async with aclosing(events.lines(Turn(generation_id=generation.pk), caller=LOCAL)) as lines:
        await anext(lines)
        line = await asyncio.wait_for(anext(lines), 5)
        assert line["status"] == {"state": "queued", "position": 2, "wait_s": 5.0}
        await in_thread(generations.request_cancel, generation_id=ahead.pk)
        line = await asyncio.wait_for(anext(lines), 5)
        assert line["status"] == {"state": "queued", "position": 1, "wait_s": 2.5}


async def test_silence_is_filled_with_pings(settings: Settings) -> None:
    settings.STREAM_PING_SECS = 0.5
    turn, worker = await make()
    async with aclosing(events.lines_and_pings(turn, caller=LOCAL)) as lines:
        await anext(lines)
        for _ in range(2):
            assert await asyncio.wait_for(anext(lines), 5) is None
        await in_thread(worker.says, "a")
        line = await asyncio.wait_for(anext(lines), 5)
        assert line is not None
        assert line["token"] == "a"


async def test_many_tokens_come_in_order_and_complete() -> None:
    turn, worker = await make()
    reading = asyncio.create_task(read(turn))
    for first in range(0, 3000, 100):
        await in_thread(worker.says, *[f"{n} " for n in range(first, first + 100)])
    await in_thread(worker.ends)
    lines = await reading
    assert text_of(lines) == "".join(f"{n} " for n in range(3000))
    assert [line["id"] for line in lines[1:-1]] == list(range(1, 3001))


async def test_an_answer_has_a_bounded_number_of_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_READERS", 2)
    turn, worker = await make()
    async with aclosing(events.lines(turn, caller=LOCAL)) as first:
        assert (await anext(first))["generation_id"]
        async with aclosing(events.lines(turn, caller=LOCAL)) as second:
            assert (await anext(second))["generation_id"]
            [refused] = await read(turn)
            assert refused["done"]
            assert refused["error"]["code"] == "too_many_readers"
            other, _ = await make()
            async with aclosing(events.lines(other, caller=LOCAL)) as third:
                assert (await anext(third))["generation_id"], "another answer has readers of its own"
    await in_thread(worker.says, "Hello")
    await in_thread(worker.ends)
    assert text_of(await read(turn)) == "Hello", "the places of readers that left are free"
