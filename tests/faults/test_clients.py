"""Clients that leave, come back or do not read."""

import json
import socket
import statistics
import time
from contextlib import ExitStack

import httpx
import pytest

from tests.api.live import count, data_lines, read_stream, say, text_of
from tests.api.test_stream_faults import is_resting, sleeper
from tests.faults.breaking import FaultStack
from tests.faults.conftest import ENVIRONMENT, Seen
from tests.faults.reading import numbers
from tests.live_stack import wait_until

GRACE_SECS = float(ENVIRONMENT["STREAM_GRACE_SECS"])
N_SLEEPERS = 50


@pytest.mark.fault(
    "22",
    "a client leaves in mid-answer and comes back within its grace, another after it, a third never",
    "it goes on whole; the others' answers are stopped, and what was said can be read",
    quick=False,
)
def test_leaving(stack: FaultStack, seen: Seen) -> None:
    first = leave(stack)
    time.sleep(GRACE_SECS / 2)
    rest = read_stream(client_of(stack), f"/chat/stream/{first['generation_id']}", headers=after(first))
    assert rest[-1]["finish_reason"] == "stop"
    assert stack.row(first["generation_id"]).text == numbers(60)
    second, third = leave(stack), leave(stack)
    time.sleep(GRACE_SECS + 2)
    for left in (second, third):
        row = stack.row(left["generation_id"])
        assert row.status == "interrupted"
        assert numbers(60).startswith(row.text)
        assert len(row.text) >= 10
    late = read_stream(client_of(stack), f"/chat/stream/{second['generation_id']}")
    assert text_of(late) == stack.row(second["generation_id"]).text
    assert late[-1]["finish_reason"] == "cancelled"
    messages = client_of(stack).get(f"/api/conversations/{third['conversation_id']}/messages/").json()["results"]
    assert messages[-1]["content"] == stack.row(third["generation_id"]).text
    seen["kept_of_stopped"] = len(messages[-1]["content"])


def client_of(stack: FaultStack) -> httpx.Client:
    return httpx.Client(base_url=stack.url, timeout=30)


def after(first: dict[str, str]) -> dict[str, str]:
    return {"Last-Event-ID": "10"}


def leave(stack: FaultStack) -> dict[str, str]:
    """Start answers, read ten tokens of each, disconnect; return the ids of the abandoned generations."""
    with httpx.stream("POST", f"{stack.url}/chat/stream", json=count(60, delay_ms=30), timeout=30) as stream:
        lines = data_lines(stream)
        first = next(lines)
        next(line for line in lines if line["id"] == 10)
        return {name: first[name] for name in ("generation_id", "conversation_id")}


@pytest.mark.fault(
    "24",
    f"{N_SLEEPERS} readers of a long answer read nothing",
    "memory grows by readers times that answer at most; nobody else is slowed",
    quick=False,
)
def test_sleeping_readers(stack: FaultStack, seen: Seen) -> None:
    client = client_of(stack)
    lines = read_stream(client, "/chat/stream", count(3000, store=False, max_tokens=16_000))
    answer_bytes = sum(len(json.dumps(line)) + 20 for line in lines)
    path = f"/chat/stream/{lines[0]['generation_id']}"
    web = stack.process("gemma-web")

    def usual_secs() -> float:
        times = []
        for _ in range(5):
            began = time.monotonic()
            assert client.post("/chat", json=say("awake", store=False)).json()["response"] == "awake"
            times.append(time.monotonic() - began)
        return statistics.median(times)

    alone_secs, before = usual_secs(), web.memory_info().rss
    with ExitStack() as opened:
        sleepers: list[socket.socket] = [opened.enter_context(sleeper(stack.port, path)) for _ in range(N_SLEEPERS)]
        wait_until(lambda: is_resting(web), timeout_secs=90, what="all has been written")
        beside_secs, growth = usual_secs(), web.memory_info().rss - before
        assert len(sleepers) == N_SLEEPERS
    seen |= {
        "answer_mb": round(answer_bytes / 1e6, 2),
        "all_readers_mb": round(N_SLEEPERS * answer_bytes / 1e6, 1),
        "web_mb_more": round(growth / 1e6, 1),
        "short_answer_ms_alone": round(alone_secs * 1000),
        "short_answer_ms_beside": round(beside_secs * 1000),
    }
    # Twisted holds at most two copies of written data until the kernel takes it; 20 MB for everything else.
    assert growth < 2 * N_SLEEPERS * answer_bytes + 20_000_000
    assert beside_secs < 5 * alone_secs + 0.5
