"""A whole answer that takes long: white space keeps the client waiting, and the body is still JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from django.http import JsonResponse, StreamingHttpResponse
from pytest_django import Settings

from chat.api.keepalive import patient_json
from chat.errors import Unavailable
from tests.live_stack import LiveStack


@pytest.fixture(autouse=True)
def _impatient(settings: Settings) -> None:
    settings.JSON_PATIENCE_SECS = 0.02


async def answer_after(event: asyncio.Event, error: Exception | None = None) -> dict[str, Any]:
    await event.wait()
    if error is not None:
        raise error
    return {"response": "so it is"}


def chunks_of(response: object) -> AsyncIterator[bytes]:
    assert isinstance(response, StreamingHttpResponse)
    content = response.streaming_content
    assert isinstance(content, AsyncIterator)
    return content


def test_a_quick_answer_is_a_plain_response() -> None:
    async def run() -> object:
        ready = asyncio.Event()
        ready.set()
        return await patient_json(answer_after(ready))

    response = asyncio.run(run())
    assert isinstance(response, JsonResponse)
    assert json.loads(response.content) == {"response": "so it is"}


def test_a_quick_failure_is_raised_so_that_it_gets_its_status() -> None:
    async def run() -> None:
        ready = asyncio.Event()
        ready.set()
        await patient_json(answer_after(ready, Unavailable("not now")))

    with pytest.raises(Unavailable, match="not now"):
        asyncio.run(run())


def test_a_slow_answer_comes_behind_white_space() -> None:
    async def run() -> list[bytes]:
        ready = asyncio.Event()
        chunks = chunks_of(await patient_json(answer_after(ready)))
        spaces = [await anext(chunks) for _ in range(3)]
        ready.set()
        return spaces + [chunk async for chunk in chunks]

    body = b"".join(asyncio.run(run()))
    assert body.startswith(b"   ")
    assert json.loads(body) == {"response": "so it is"}


def test_a_late_failure_is_an_error_object() -> None:
    async def run() -> bytes:
        ready = asyncio.Event()
        chunks = chunks_of(await patient_json(answer_after(ready, Unavailable("gone", code="store_unavailable"))))
        await anext(chunks)
        ready.set()
        return b"".join([chunk async for chunk in chunks])

    answer = json.loads(asyncio.run(run()))
    assert answer["error"]["code"] == "store_unavailable"


def test_an_unforeseen_late_failure_tells_nothing_of_itself() -> None:
    async def run() -> bytes:
        ready = asyncio.Event()
        chunks = chunks_of(await patient_json(answer_after(ready, ZeroDivisionError("secret detail"))))
        await anext(chunks)
        ready.set()
        return b"".join([chunk async for chunk in chunks])

    body = asyncio.run(run())
    assert b"secret detail" not in body
    assert "error" in json.loads(body)


@pytest.mark.parametrize("n_read", [0, 1], ids=["before the first space", "after it"])
def test_leaving_ends_the_waiting(n_read: int) -> None:
    """The answer's own coroutine is cancelled, so that its reader is counted out and the grace begins."""
    ended = []

    async def endless() -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return {}

    async def client() -> None:
        chunks = chunks_of(await patient_json(endless()))
        async for _ in chunks:
            if n_read:
                await chunks.aclose()  # type: ignore[attr-defined]
                return

    async def run() -> None:
        task = asyncio.create_task(client())
        if not n_read:
            await asyncio.sleep(0.005)
            task.cancel()
        await asyncio.wait({task}, timeout=5)

    asyncio.run(run())
    assert ended == [True]


@pytest.mark.slow
def test_a_client_with_a_short_timeout_gets_a_long_answer(live_stack_with_little_patience: LiveStack) -> None:
    """The answer takes 2 s; its client gives up after 1 s of silence."""
    stack = live_stack_with_little_patience
    body = {"messages": [{"role": "user", "content": "[[delay: 100]][[count: 10]]"}]}
    answer = httpx.post(f"{stack.url}/chat", json=body, timeout=1.0)
    assert answer.status_code == 200
    assert answer.content.startswith(b" ")
    assert answer.json()["response"].split() == [str(n) for n in range(1, 11)]


@pytest.fixture
def live_stack_with_little_patience(live_stack: Any) -> LiveStack:  # noqa: ANN401  a callable of another room
    stack: LiveStack = live_stack(backend="fake", JSON_PATIENCE_SECS="0.2")
    return stack
