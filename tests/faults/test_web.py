"""Web processes that are killed or stopped: accepted requests are answered, and readers resume without a gap."""

import signal
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, Reading, numbers
from tests.live_stack import wait_until

TERMINAL_SECS = 20.0  # the promised time, counted from the restart


@pytest.mark.fault(
    "1",
    "kill -9 of the web process in the instant the row is committed, before or after its wake-up message",
    "the row ends within 20 s of the restart",
    repeated=True,
)
def test_killed_right_after_the_commit(stack: FaultStack, seen: Seen) -> None:
    web, n_before = stack.process("gemma-web"), len(stack.rows())

    def ask() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"{stack.url}/chat/stream", json=say("accepted"), timeout=30)

    asking = threading.Thread(target=ask)
    asking.start()
    while len(rows := stack.rows()) == n_before:
        pass  # as early as it can be seen
    web.kill()
    stack.n_deaths += 1
    seen["status_at_the_kill"] = rows[-1].status
    seen["restart_secs"] = round(stack.wait_until_healthy(), 1)
    began = time.monotonic()
    generation_id = rows[-1].id
    wait_until(lambda: stack.has_ended(generation_id), timeout_secs=TERMINAL_SECS, what="the row has ended")
    seen["ended_secs"] = round(time.monotonic() - began, 1)
    asking.join()
    row = stack.row(generation_id)
    # Its reader did not come back: cancelled or complete, but ended, and readable by its owner.
    assert (row.status, row.text) in [("complete", "accepted"), ("interrupted", "")]


@pytest.mark.fault(
    "23",
    "kill -9 of web, then of the worker, then of the broker, all within one answer",
    "an independent client (httpx-sse) has the whole text, no gap, no repetition",
    repeated=True,
)
def test_three_kills_in_one_answer(stack: FaultStack, seen: Seen) -> None:
    titles = ["gemma-web", "gemma-worker", "gemma-valkey"]
    killed_at: dict[str, int] = {}

    def kill_sometimes(reading: Reading) -> None:
        if titles and reading.n_tokens >= 60 * (len(killed_at) + 1):
            title = titles.pop(0)
            killed_at[title] = reading.n_tokens
            stack.kill(title)

    reading = Client(stack.url).read(count(150, delay_ms=20), on_line=kill_sometimes)
    reading.assert_whole(numbers(150))
    again = httpx.get(f"{stack.url}/api/conversations/{reading.last['conversation_id']}/messages/", timeout=30)
    assert again.json()["results"][-1]["content"] == reading.text
    assert len(killed_at) == 3
    seen |= {"killed_at_token": killed_at, "connections": reading.n_connections}
    seen["pause_secs"] = round(reading.longest_gap_secs, 1)


@pytest.mark.fault(
    "23",
    "SIGTERM to the web process with 4 streams open",
    "each ends with a line that says it can be resumed, and is whole after it was",
    quick=False,
)
def test_a_stopped_web_process(stack: FaultStack, seen: Seen) -> None:
    answers = Client(stack.url).begin([count(60, delay_ms=40, store=False)] * 4, n_tokens=15)
    web = stack.process("gemma-web")
    began = time.monotonic()
    web.send_signal(signal.SIGTERM)
    psutil.wait_procs([web], timeout=10)
    seen["exit_secs"] = round(time.monotonic() - began, 1)
    stack.n_deaths += 1
    for answer in answers:
        reading = answer.result()
        reading.assert_whole(numbers(60))
        assert "this process ends; resume with the id of the last line" in str(reading.statuses)
        assert reading.n_connections >= 2
    assert seen["exit_secs"] < 1.5 + 3


@pytest.mark.fault(
    "1",
    "kill -9 of the web process while it looks for memories, before anything is rung",
    "the prompt is built elsewhere, the row ends within 20 s of the restart",
    repeated=True,
    quick=False,
)
def test_killed_while_preparing(make_stack: MakeStack, seen: Seen) -> None:
    # This address never answers: connecting takes until the search's own time limit.
    stack = make_stack(RAG_SERVICE_URL="http://10.255.255.1:9", RAG_TIMEOUT_SECS="8", STREAM_GRACE_SECS="60")
    stack.start()
    body = say("found later", use_rag=True)
    with suppress(httpx.TransportError), httpx.stream("POST", f"{stack.url}/chat/stream", json=body) as stream:
        for line in stream.iter_lines():
            if "retrieving" in line:
                stack.kill("gemma-web")
                break
    (row,) = [row for row in stack.rows() if row.status == "preparing"]
    stack.wait_until_healthy()
    began = time.monotonic()
    wait_until(lambda: stack.has_ended(row.id), timeout_secs=TERMINAL_SECS + 20, what="the row has ended")
    seen["ended_secs"] = round(time.monotonic() - began, 1)
    assert (stack.row(row.id).status, stack.row(row.id).text) == ("complete", "found later")
