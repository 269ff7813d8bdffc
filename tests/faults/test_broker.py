"""A broker that is killed, unreachable, wiped or full: no work is lost, and callers get an error that names it."""

import signal
import time

import httpx
import pytest

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.broker import Broker
from tests.faults.conftest import MakeStack, Seen
from tests.faults.reading import Client, numbers
from tests.live_stack import wait_until

NEXT_JOB_SECS = 10.0
SLACK_SECS = 10.0
WithBroker = tuple[FaultStack, Broker]


def worker_pid(stack: FaultStack) -> int:
    return stack.process("gemma-worker").pid


@pytest.mark.parametrize("away_secs", [0.3, 2.0, 8.0])
@pytest.mark.fault(
    "9",
    "kill -9 of the broker in the middle of 4 answers, started again from its file after 0.3, 2 or 8 s",
    "all end whole on their streams, the worker runs on, the next job runs within 10 s",
    repeated=True,
    quick=False,
)
def test_killed_while_busy(with_broker: WithBroker, seen: Seen, away_secs: float) -> None:
    stack, broker = with_broker
    worker = worker_pid(stack)
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=15)
    broker.kill()
    time.sleep(away_secs)
    broker.start()
    began = time.monotonic()
    Client(stack.url).read(say("next", store=False)).assert_whole("next")
    seen["next_job_secs"] = round(time.monotonic() - began, 1)
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(60))
        assert stack.row(each.generation_id).attempt == 1
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
    assert worker_pid(stack) == worker
    assert seen["next_job_secs"] < NEXT_JOB_SECS + SLACK_SECS


@pytest.mark.fault(
    "10",
    "kill -9 of the broker while nothing runs",
    "the next job runs, in the same worker",
    repeated=True,
    quick=False,
)
def test_killed_while_idle(with_broker: WithBroker, seen: Seen) -> None:
    stack, broker = with_broker
    worker = worker_pid(stack)
    broker.kill()
    time.sleep(0.5)
    broker.start()
    began = time.monotonic()
    Client(stack.url).read(say("next", store=False)).assert_whole("next")
    seen["next_job_secs"] = round(time.monotonic() - began, 1)
    assert worker_pid(stack) == worker
    assert seen["next_job_secs"] < NEXT_JOB_SECS + SLACK_SECS


@pytest.mark.fault(
    "11",
    "the broker is away for 5 s while an answer runs and others are asked for",
    "503 with Retry-After and nothing stored, never 500; /health names Redis; all is well afterwards",
    quick=False,
)
def test_away(with_broker: WithBroker, seen: Seen) -> None:
    stack, broker = with_broker
    (answer,) = Client(stack.url).begin([count(60, delay_ms=40, store=False)], n_tokens=15)
    n_before = len(stack.rows())
    broker.kill()
    began = time.monotonic()
    readings = []
    while time.monotonic() - began < 5:
        readings.append(httpx.post(f"{stack.url}/chat", json=say("no"), timeout=30))
        health = stack.health()
        assert (health.status_code, health.json()["redis"]["ok"]) == (503, False)
        time.sleep(0.5)
    assert {(each.status_code, each.json()["error"]["code"]) for each in readings} == {(503, "store_unavailable")}
    assert all(int(each.headers["Retry-After"]) > 0 for each in readings)
    assert len(stack.rows()) == n_before
    broker.start()
    answer.result().assert_whole(numbers(60))
    seen |= {"refused": len(readings), "healthy_again_secs": round(stack.wait_until_healthy(), 1)}
    Client(stack.url).read(say("yes", store=False)).assert_whole("yes")


@pytest.mark.fault(
    "7",
    "kill -9 of the broker and its file removed, with 8 answers running and 8 queued",
    "all are answered, each by one claim, and what runs is not begun anew",
    repeated=True,
    quick=False,
)
def test_everything_lost(make_stack: MakeStack, seen: Seen) -> None:
    broker = Broker()
    broker.start()
    try:
        stack = make_stack(REDIS_URL=broker.url)
        stack.start()
        running = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 8, n_tokens=15)
        waiting = Client(stack.url).begin([count(20, store=False)] * 8)
        broker.kill()
        broker.forget()
        broker.start()
        for answer, text in [(each, numbers(60)) for each in running] + [(each, numbers(20)) for each in waiting]:
            reading = answer.result()
            reading.assert_whole(text)
            row = stack.row(reading.generation_id)
            assert (row.status, row.attempt, row.epoch) == ("complete", 1, 1)
        assert len(stack.rows()) == 16 + 1, "and what the start asked for"
    finally:
        stack.clean_up()
        broker.clean_up()


@pytest.mark.fault(
    "7",
    "kill -9 of worker and broker at once, the broker's file removed, with 4 running and 4 queued",
    "all end once in a later claim",
    repeated=True,
    quick=False,
)
def test_everything_lost_with_the_worker(make_stack: MakeStack, seen: Seen) -> None:
    broker = Broker()
    broker.start()
    try:
        stack = make_stack(REDIS_URL=broker.url, GEMMA_PARALLEL="4")
        stack.start()
        answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 8)
        wait_until(lambda: sum(row.status == "running" for row in stack.rows()) == 4, timeout_secs=20, what="4 run")
        time.sleep(0.5)
        stack.kill("gemma-worker")
        broker.kill()
        broker.forget()
        broker.start()
        for answer in answers:
            reading = answer.result()
            # The tokens of the lost log are computed again, and are the same ones.
            reading.assert_whole(numbers(60))
            assert stack.row(reading.generation_id).text == numbers(60)
        seen["epochs"] = sorted(row.epoch for row in stack.rows()[1:])
    finally:
        stack.clean_up()
        broker.clean_up()


@pytest.mark.fault(
    "46",
    "the broker has no memory left, in the middle of an answer",
    "503 with Retry-After, /health says that it is full; when there is room again the answer is whole",
    quick=False,
)
def test_full(with_broker: WithBroker, seen: Seen) -> None:
    stack, broker = with_broker
    client = broker.client()
    (answer,) = Client(stack.url).begin([count(60, delay_ms=40, store=False)], n_tokens=15)
    client.config_set("maxmemory", 1)
    refused = httpx.post(f"{stack.url}/chat", json=say("no"), timeout=30)
    health = stack.health().json()
    time.sleep(2)
    client.config_set("maxmemory", 512 * 1024 * 1024)
    client.close()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert refused.headers["Retry-After"]
    assert (health["redis"]["ok"], health["redis"]["detail"]) == (False, "is full")
    reading = answer.result()
    reading.assert_whole(numbers(60))
    assert stack.row(reading.generation_id).attempt == 1
    seen["pause_secs"] = round(reading.longest_gap_secs, 1)


@pytest.mark.fault(
    "9",
    "the broker hangs (SIGSTOP) for 5 s in the middle of 4 answers",
    "all end whole",
    repeated=True,
    quick=False,
)
def test_hanging(with_broker: WithBroker, seen: Seen) -> None:
    stack, broker = with_broker
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 4, n_tokens=15)
    broker.signal(signal.SIGSTOP)
    time.sleep(5)
    broker.signal(signal.SIGCONT)
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(60))
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
