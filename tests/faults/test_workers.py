"""Workers that are killed, frozen, stopped: every answer ends once, on the stream its client has."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import SHORT_CLAIMS, MakeStack, Seen
from tests.faults.reading import Client, numbers
from tests.live_stack import wait_until

CLAIM_TTL_SECS = float(SHORT_CLAIMS["CLAIM_TTL_SECS"])
# A new worker process needs two or three seconds for its imports, several times that beside other tests.
START_SLACK_SECS = 15.0
N_STREAMS = 8
N_NUMBERS = 60


def slow(delay_ms: int = 25) -> dict[str, object]:
    return count(N_NUMBERS, delay_ms=delay_ms, store=False)


@pytest.mark.fault(
    "2",
    "kill -9 of the worker in the middle of 8 answers",
    "all 8 go on in the next worker on the same streams, no gap, no repetition, attempt 2",
    repeated=True,
)
def test_a_killed_worker(stack: FaultStack, seen: Seen) -> None:
    answers = Client(stack.url).begin([slow()] * N_STREAMS, n_tokens=15)
    stack.kill("gemma-worker")
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(N_NUMBERS))
        row = stack.row(each.generation_id)
        assert (row.status, row.text, row.attempt) == ("complete", numbers(N_NUMBERS), 2)
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
    seen["connections"] = max(each.n_connections for each in readings)
    assert seen["connections"] == 1, "the web process lived: nobody had to come back"
    assert seen["pause_secs"] < CLAIM_TTL_SECS + START_SLACK_SECS


@pytest.mark.fault(
    "2",
    "kill -9 of the worker, then of the runner, then of the web process in the middle of 4 answers of the real model",
    "all 4 end, what was told is what is stored, no gap, no repetition",
    repeated=True,
    quick=False,
)
@pytest.mark.real_model
def test_kills_on_the_real_model(make_stack: MakeStack, seen: Seen, model_path: Path) -> None:
    stack = make_stack(backend="llama", GEMMA_MODEL_PATH=str(model_path), GEMMA_PARALLEL="4", GEMMA_CONTEXT_SIZE="4096")
    stack.start()
    tales = [f"Tell me a long story about the number {number}." for number in range(4)]
    bodies = [
        {"messages": [{"role": "user", "content": tale}], "max_tokens": 120, "ignore_eos": True, "store": False}
        for tale in tales
    ]
    answers = Client(stack.url).begin(bodies, n_tokens=20)
    for title in ("gemma-worker", "gemma-runner", "gemma-web"):
        stack.wait_for(title)
        stack.kill(title)
        stack.wait_until_healthy()
    readings = [answer.result() for answer in answers]
    for each in readings:
        row = stack.row(each.generation_id)
        each.assert_whole(row.text)
        assert (row.status, each.last["finish_reason"], each.n_tokens) == ("complete", "length", 120)
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)


@pytest.mark.fault(
    "5",
    "SIGSTOP of the worker for twice its claim's time while a second one runs, then SIGCONT",
    "the second one's answer stands, the first writes nothing",
    repeated=True,
    quick=False,
)
def test_a_frozen_worker(stack: FaultStack, seen: Seen) -> None:
    (answer,) = Client(stack.url).begin([slow(50)], n_tokens=15)
    with stack.second_worker() as second, stack.frozen("gemma-worker") as first:
        reading = answer.result()
        row = stack.row(reading.generation_id)
        first.send_signal(signal.SIGCONT)
        time.sleep(CLAIM_TTL_SECS)  # the late owner has all the time it could want
        reading.assert_whole(numbers(N_NUMBERS))
        assert stack.row(reading.generation_id) == row
        assert (row.status, row.text, row.attempt) == ("complete", numbers(N_NUMBERS), 2)
        assert second.poll() is None
    again = Client(stack.url).read(slow(50))  # and the first one is of use again
    again.assert_whole(numbers(N_NUMBERS))
    seen |= {"pause_secs": round(reading.longest_gap_secs, 1), "epoch": row.epoch}


@pytest.mark.fault(
    "48",
    "SIGSTOP of the worker",
    "/health says 503 before the last report expires, and 200 again afterwards",
    repeated=True,
    quick=False,
)
def test_health_tells_the_truth(stack: FaultStack, seen: Seen) -> None:
    began = time.monotonic()
    with stack.frozen("gemma-worker"):
        wait_until(lambda: not stack.is_healthy(), timeout_secs=15, what="the frozen worker is seen")
        seen["noticed_secs"] = round(time.monotonic() - began, 1)
        reading = stack.health().json()
        assert (reading["status"], reading["worker"]["detail"]) == ("unhealthy", "no worker has reported lately")
    seen["healthy_again_secs"] = round(stack.wait_until_healthy(), 1)


@pytest.mark.fault("48", "kill -9 of the worker", "/health says 503 within a second, then 200 again", repeated=True)
def test_health_of_the_dead(stack: FaultStack, seen: Seen) -> None:
    stack.kill("gemma-worker")
    began = time.monotonic()
    wait_until(lambda: not stack.is_healthy(), timeout_secs=10, what="the dead worker is seen")
    seen["noticed_secs"] = round(time.monotonic() - began, 2)
    # A report is valid for ten seconds: an earlier notice came from the lock, also on a busy machine.
    assert seen["noticed_secs"] < 5
    assert not stack.health().json()["worker"]["ok"]
    seen["healthy_again_secs"] = round(stack.wait_until_healthy(), 1)


@pytest.mark.fault(
    "14",
    "SIGTERM to the worker with one short answer running, one long one, and three queued",
    "the short one ends in its time, the rest goes on in the next worker exactly once",
    repeated=True,
    quick=False,
)
def test_a_stopped_worker(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack(GEMMA_PARALLEL="2", DRAIN_SECS="3")
    stack.start()
    # Beside each other all take the time of the slowest: 2 s for the first, 7 s for the second.
    bodies = [count(n, delay_ms=40, store=False) for n in (20, N_NUMBERS)]
    running = Client(stack.url).begin(bodies, n_tokens=15)
    queued = Client(stack.url).begin([slow(0)] * 3)
    began = time.monotonic()
    worker = stack.process("gemma-worker")
    worker.send_signal(signal.SIGTERM)
    worker.wait(15)
    seen["exit_secs"] = round(time.monotonic() - began, 1)
    readings = [answer.result() for answer in running + queued]
    readings[0].assert_whole(numbers(20))
    for each in readings[1:]:
        each.assert_whole(numbers(N_NUMBERS))
    rows = [stack.row(each.generation_id) for each in readings]
    assert {row.status for row in rows} == {"complete"}
    # A run that was released in order counts as no attempt; its epoch shows that it moved.
    assert [row.epoch for row in rows] == [1, 3, 1, 1, 1]
    assert seen["exit_secs"] < 3 + 2 + 5, "DRAIN_SECS, 2 s, and slack"


@pytest.mark.fault("16", "an answer without an end, timeout_s 5", "it ends as timed out, what follows is computed")
def test_a_deadline(stack: FaultStack, seen: Seen) -> None:
    began = time.monotonic()
    reading = Client(stack.url).read(count(5000, delay_ms=30, timeout_s=5, max_tokens=16_000))
    seen["ended_secs"] = round(time.monotonic() - began, 1)
    assert reading.last["error"]["code"] == "timeout"
    assert reading.n_tokens > 0
    row = stack.row(reading.generation_id)
    assert (row.status, row.text) == ("interrupted", reading.text)
    assert seen["ended_secs"] < 5 + 5
    Client(stack.url).read(say("free")).assert_whole("free")


@pytest.mark.fault(
    "17", "three cancels in the middle of an answer", "it stops within a second, its text is kept, nobody gets a 5xx"
)
def test_cancels(stack: FaultStack, seen: Seen) -> None:
    (answer,) = Client(stack.url).begin([count(5000, delay_ms=30, max_tokens=16_000)], n_tokens=10)
    generation_id = stack.rows()[-1].id
    began = time.monotonic()
    answers = [httpx.post(f"{stack.url}/api/generations/{generation_id}/cancel") for _ in range(3)]
    reading = answer.result()
    seen["stopped_secs"] = round(time.monotonic() - began, 2)
    assert {each.status_code for each in answers} <= {200, 409}
    assert answers[0].status_code == 200
    assert reading.last["finish_reason"] == "cancelled"
    assert stack.row(reading.generation_id).text == reading.text != ""
    assert seen["stopped_secs"] < 1 + 2


@pytest.mark.fault(
    "44",
    "kill -9 of the supervisor in the middle of 8 answers, started again at once",
    "all 8 end",
    repeated=True,
    quick=False,
)
def test_the_whole_service_killed(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack()
    stack.start()
    answers = Client(stack.url).begin([slow()] * N_STREAMS, n_tokens=15)
    os.kill(stack.pid, signal.SIGKILL)
    stack.wait()
    stack.start()
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(N_NUMBERS))
    assert len(stack.rows()) == N_STREAMS + 2, "the answers and what the two starts asked for"
    seen |= {"pause_secs": round(max(each.longest_gap_secs for each in readings), 1)}
