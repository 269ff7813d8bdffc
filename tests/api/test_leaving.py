"""Readers that leave: after a grace period the answer is stopped, unless it has another reader or the process ends."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest
import redis
from pytest_django import Settings

from chat.access.callers import Caller
from chat.errors import NotFound
from chat.services.turns import Turn
from chat.streaming import disconnect, events
from chat.streaming.background import in_thread
from inference.enums import Status
from inference.models import Generation, Priority
from inference.token_stream import subscribers
from tests.api.script import LOCAL, ScriptedWorker, make, read, text_of, until_read
from tests.inference.making import joined

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_broker")]


class TestLeaving:
    async def stopped_within(self, turn: Turn, secs: float) -> bool:
        deadline = time.monotonic() + secs
        while time.monotonic() < deadline:
            row = await Generation.objects.aget(pk=turn.generation_id)
            if row.cancel_requested or row.is_ended:
                return True
            await asyncio.sleep(0.05)
        return False

    async def leave(self, turn: Turn, *, stops: bool = True) -> None:
        async with aclosing(events.lines(turn, caller=LOCAL, stops=stops)) as lines:
            await anext(lines)
            await asyncio.wait_for(anext(lines), 2)

    async def running(self) -> tuple[Turn, ScriptedWorker]:
        turn, worker = await make()
        await in_thread(worker.says, "a")
        return turn, worker

    async def test_the_last_reader_stops_it_after_the_grace(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0.6
        turn, _ = await self.running()
        await self.leave(turn)
        assert not await self.stopped_within(turn, 0.3)
        assert await self.stopped_within(turn, 2)

    async def test_a_reader_that_comes_back_in_time_keeps_it(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0.4
        turn, _ = await self.running()
        await self.leave(turn)
        async with aclosing(events.lines(turn, caller=LOCAL, after=1)) as lines:
            await anext(lines)
            pending = asyncio.ensure_future(anext(lines))
            assert not await self.stopped_within(turn, 1)
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)

    async def test_a_gap_at_the_wrong_moment_is_not_a_grace(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0.6
        turn, _ = await self.running()
        await self.leave(turn)
        await asyncio.sleep(0.4)
        # Comes and goes shortly before the first grace is over: the second counts.
        await self.leave(turn)
        assert not await self.stopped_within(turn, 0.4)
        assert await self.stopped_within(turn, 2)

    @pytest.mark.parametrize("is_counted", [False, True])
    async def test_who_leaves_while_being_counted_has_left(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, is_counted: bool
    ) -> None:
        settings.STREAM_GRACE_SECS = 0.1
        turn, _ = await self.running()
        run = subscribers._run

        async def slow(script: str, *arguments: Any) -> int:  # noqa: ANN401
            answer = await run(script, *arguments) if is_counted or script != subscribers.PRESENT else 0
            if script == subscribers.PRESENT:
                await asyncio.sleep(5)
            return answer

        monkeypatch.setattr(subscribers, "_run", slow)
        reading = asyncio.create_task(read(turn))
        await asyncio.sleep(0.2)
        reading.cancel()
        assert await self.stopped_within(turn, 2)

    async def test_another_reader_keeps_it(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0
        turn, _ = await self.running()
        other = await joined(turn.generation_id)
        await self.leave(turn)
        assert not await self.stopped_within(turn, 0.5)
        await subscribers.leave(turn.generation_id, other)

    async def test_batch_work_goes_on_alone(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0
        turn, _ = await self.running()
        await self.leave(turn, stops=False)
        assert not await self.stopped_within(turn, 0.5)

    async def test_a_process_that_ends_stops_nothing(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0.1
        turn, _ = await self.running()
        await self.leave(turn)
        disconnect.shutdown.is_set = True
        assert not await self.stopped_within(turn, 0.6)

    async def test_one_that_ended_is_left_in_peace(self, settings: Settings) -> None:
        settings.STREAM_GRACE_SECS = 0
        turn, worker = await self.running()
        await in_thread(worker.ends)
        await self.leave(turn)
        await asyncio.sleep(0.2)
        assert (await Generation.objects.aget(pk=turn.generation_id)).status == Status.COMPLETE

    async def test_an_accepted_turn_that_nobody_reads_is_stopped(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.STREAM_GRACE_SECS = 0
        monkeypatch.setattr(disconnect, "FIRST_READ_SECS", 0.2)
        turn, _ = await make()
        # The client goes away while its turn is being stored; the storing is not cut in half.
        starting = asyncio.create_task(events.start(lambda: _slowly(turn), caller=LOCAL, stops=True))
        await asyncio.sleep(0.05)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await self.stopped_within(turn, 2)

    async def test_the_reader_is_gone_at_once_and_so_is_its_connection(self, redis_client: "redis.Redis[str]") -> None:
        turn, _ = await self.running()
        n_before = len(redis_client.client_list())
        reading = asyncio.create_task(read(turn))
        await until_read(turn)
        began = time.monotonic()
        reading.cancel()  # Django's treatment of the response when its client has left
        await asyncio.gather(reading, return_exceptions=True)
        while await subscribers.count(turn.generation_id) or len(redis_client.client_list()) > n_before:
            assert time.monotonic() - began < 1
            await asyncio.sleep(0.01)


def _slowly(turn: Turn) -> Turn:
    time.sleep(0.2)
    return turn


async def test_a_process_that_ends_says_so_and_gives_no_last_line() -> None:
    turn, worker = await make()
    await in_thread(worker.says, "a")
    reading = asyncio.create_task(read(turn))
    await until_read(turn)
    await events.close_all(3)
    lines = await asyncio.wait_for(reading, 0.5)
    assert not any(line["done"] for line in lines)
    assert lines[-1]["status"]["state"] == "yielding"
    disconnect.shutdown.is_set = False
    await in_thread(worker.says, "b")
    await in_thread(worker.ends)
    assert text_of(lines) + text_of(await read(turn, lines[-1]["id"])) == "ab"


async def test_nobody_elses_answer_can_be_resumed() -> None:
    turn, _ = await make()
    resumed, stops = await in_thread(events.resumed, caller=LOCAL, generation_id=turn.generation_id)
    assert (resumed.generation_id, stops) == (turn.generation_id, True)
    with pytest.raises(NotFound):
        await in_thread(events.resumed, caller=Caller("user:1"), generation_id=turn.generation_id)


@pytest.mark.parametrize(
    ("priority", "key", "stops"),
    [(Priority.INTERACTIVE, None, True), (Priority.BATCH, None, False), (Priority.INTERACTIVE, "k", False)],
)
async def test_what_somebody_comes_back_for_is_not_stopped_by_leaving(
    priority: Priority, key: str | None, stops: bool
) -> None:
    turn, _ = await make(priority=priority, idempotency_key=key)
    assert (await in_thread(events.resumed, caller=LOCAL, generation_id=turn.generation_id))[1] is stops
