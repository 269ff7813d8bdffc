"""Bodies of a megabyte with as many values as fit: one is parsed at a time, off the event loop, and none is kept."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application

from chat.api import body_parsing
from gemma_project.asgi import application
from tests.live_stack import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PATHS = ["/chat", "/chat/stream", "/generate", "/search", "/memory/add", "/index/transcript", "/gpu/acquire"]
PATHS += ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/tokenize"]
PATHS += ["/api/token/"]
N_VALUES = 20_000
BODY = b'{"messages": [' + b"[]," * N_VALUES + b"1]}"


@pytest.fixture
def without_collector() -> Iterator[None]:
    """As between two collections: what only the collector would free is kept."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def post(path: str, body: bytes) -> int:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "query_string": b""}
    scope |= {"headers": headers, "client": ["127.0.0.1", 50_000], "server": ["127.0.0.1", 8001]}
    call = ApplicationCommunicator(get_asgi_application(), scope)  # type: ignore[no-untyped-call]
    await call.send_input({"type": "http.request", "body": body})  # type: ignore[no-untyped-call]
    start = await call.receive_output(20)  # type: ignore[no-untyped-call]
    while (await call.receive_output(20)).get("more_body"):  # type: ignore[no-untyped-call]
        pass
    await call.wait()  # type: ignore[no-untyped-call]
    status: int = start["status"]
    return status


@pytest.mark.parametrize("path", PATHS)
def test_a_refused_body_is_freed_at_once(path: str, without_collector: None) -> None:
    n_before = n_lists()
    statuses = [asyncio.run(post(path, BODY)) for _ in range(2)]
    assert set(statuses) <= {400, 413, 422}, statuses
    # The thread that has answered may still be about to return.
    wait_until(lambda: n_lists() < n_before + N_VALUES, timeout_secs=10.0, what="the bodies are freed")


def test_one_long_body_is_parsed_at_a_time_and_never_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[str] = []
    most = 0

    def loads(text: str) -> object:
        nonlocal most
        running.append(threading.current_thread().name)
        most = max(most, len(running))
        time.sleep(0.02)
        assert threading.current_thread() is not threading.main_thread()  # which has the event loop
        running.pop()
        return {"messages": 1}

    async def posts() -> list[int]:
        return await asyncio.gather(*(post(path, BODY) for path in (*PATHS, "/gpu/release", "/gemma/request")))

    monkeypatch.setattr(body_parsing, "json", SimpleNamespace(loads=loads))
    statuses = asyncio.run(posts())
    assert most == 1
    assert set(statuses) <= {400, 413, 422}, statuses


def test_a_long_frame_is_not_parsed_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def loads(text: str) -> object:
        threads.append(threading.current_thread())
        return {"type": "none"}

    async def sent() -> None:
        socket = WebsocketCommunicator(application, "/ws/chat", headers=[(b"host", b"localhost")])
        socket.scope["client"] = ["127.0.0.1", 50_000]
        is_open, reason = await socket.connect(timeout=20)
        assert is_open, reason
        await socket.send_to(text_data=BODY.decode())
        assert json.loads(await socket.receive_from(timeout=20))["error"]["code"] == "invalid_request"
        await socket.disconnect(timeout=20)

    monkeypatch.setattr(body_parsing, "json", SimpleNamespace(loads=loads))
    asyncio.run(sent())
    assert threads
    assert threading.main_thread() not in threads


def n_lists() -> int:
    return sum(type(value) is list for value in gc.get_objects())
