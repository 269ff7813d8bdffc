"""Requests that arrive together are made into turns in order, and one that hangs holds nobody up for long."""

import asyncio
import json
import threading
import time
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.test import RequestFactory

from chat.access.callers import Caller
from chat.api.turn_requests import ask_chat, ask_completion
from chat.api.websocket import ChatConsumer
from chat.errors import Unavailable
from chat.services import turns
from chat.streaming import admission as module
from chat.streaming.admission import in_arrival_order

ANN = Caller("user:1")


class Busy:
    """Counts how many are inside; the order in which they came in."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.order: list[int] = []

    async def work(self, number: int, secs: float = 0.001) -> None:
        async with in_arrival_order():
            self.order.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(secs)
            finally:
                self.now -= 1


@pytest.mark.parametrize("_loop", ["one event loop", "another"])
def test_in_order_of_arrival_one_at_a_time(_loop: str) -> None:
    async def all_at_once() -> Busy:
        busy = Busy()
        await asyncio.gather(*map(busy.work, range(20)))
        return busy

    busy = asyncio.run(all_at_once())
    assert busy.most == 1
    assert busy.order == list(range(20))


async def test_one_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECS", 0.05)
    busy = Busy()
    hanging = asyncio.create_task(busy.work(0, secs=60))
    await asyncio.sleep(0)
    began = time.monotonic()
    await asyncio.gather(*(busy.work(number) for number in range(1, 9)))
    assert time.monotonic() - began < 5, "all at once after a moment, not one after the other"
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await busy.work(9)
    assert busy.order[0] == 0
    assert busy.order[-1] == 9
    assert busy.now == 0


async def test_who_leaves_while_waiting_or_inside_leaves_no_gap() -> None:
    busy = Busy()
    inside, waiting = (asyncio.create_task(busy.work(number, secs=60)) for number in range(2))
    following = asyncio.create_task(busy.work(2))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert busy.order == [0]
    inside.cancel()
    await asyncio.wait_for(following, timeout=5)
    assert busy.order == [0, 2]


# ---- every door goes through it ----


def by_http(ask: Any, body: dict[str, Any]) -> Coroutine[Any, Any, object]:  # noqa: ANN401
    request = RequestFactory().post("/", json.dumps(body), content_type="application/json")
    return cast(Coroutine[Any, Any, object], ask(request, ANN))


def by_socket() -> Coroutine[Any, Any, object]:
    consumer = ChatConsumer()
    consumer._credentials = cast(Any, SimpleNamespace(caller=ANN))
    return consumer._start({"type": "chat", "message": "hi"}, is_long=False)


@pytest.mark.parametrize("door", ["chat", "completion", "socket"])
async def test_turns_are_made_one_after_the_other(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = threading.Semaphore(1)
    side_by_side: list[bool] = []

    def begin(**_: object) -> None:
        is_alone = inside.acquire(blocking=False)
        side_by_side.append(not is_alone)
        time.sleep(0.01)
        if is_alone:
            inside.release()
        raise Unavailable("no further in this test", code="test", retry_after_secs=1)

    for name in ("start_turn", "start_completion"):
        monkeypatch.setattr(turns, name, begin)
    bodies = {
        "chat": lambda: by_http(ask_chat, {"message": "hi"}),
        "completion": lambda: by_http(ask_completion, {"prompt": "Once"}),
        "socket": by_socket,
    }[door]
    results = await asyncio.gather(*(bodies() for _ in range(8)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 8
    assert side_by_side == [False] * 8
