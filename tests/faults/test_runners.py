"""The model's process is killed: a pause in its answers, and one prompt alone that kills it each time."""

import time

import httpx
import psutil
import pytest

from tests.api.live import count, say
from tests.faults.breaking import FaultStack
from tests.faults.conftest import Seen
from tests.faults.reading import Client, numbers

PAUSE_SECS = 3.0
POISON = {"messages": [{"role": "user", "content": "[[abort]]"}], "store": False}
SLACK_SECS = 7.0


@pytest.mark.fault("2", "kill -9 of the runner in the middle of 8 answers", "all 8 end, a pause of 3 s", repeated=True)
def test_in_the_middle_of_answers(stack: FaultStack, seen: Seen) -> None:
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 8, n_tokens=15)
    kill_runner(stack)
    readings = [answer.result() for answer in answers]
    for each in readings:
        each.assert_whole(numbers(60))
        assert stack.row(each.generation_id).attempt == 1
        assert "the model process ended" in str(each.statuses)
    seen["pause_secs"] = round(max(each.longest_gap_secs for each in readings), 1)
    assert seen["pause_secs"] < PAUSE_SECS + SLACK_SECS


@pytest.mark.fault(
    "2",
    "kill -9 of the runner while it reads a prompt",
    "the answer comes",
    repeated=True,
    quick=False,
)
def test_in_the_middle_of_a_prompt(stack: FaultStack, seen: Seen) -> None:
    # Every step takes 150 ms, and the prompt is read in about twenty.
    body = count(30, delay_ms=150, max_tokens=40, store=False)
    body["messages"] = [{"role": "user", "content": f"{body['messages'][0]['content']} {'x' * 5000}"}]  # type: ignore[index]
    (answer,) = Client(stack.url).begin([body])
    time.sleep(0.5)
    kill_runner(stack)
    reading = answer.result()
    reading.assert_whole(numbers(30)[:40])
    seen["first_token_states"] = [status["state"] for status in reading.statuses][:4]


@pytest.mark.fault("2", "kill -9 of the runner while nothing runs", "the next answer comes", repeated=True)
def test_while_idle(stack: FaultStack, seen: Seen) -> None:
    kill_runner(stack)
    began = time.monotonic()
    Client(stack.url).read(say("still here", store=False)).assert_whole("still here")
    seen["answer_secs"] = round(time.monotonic() - began, 1)
    assert seen["answer_secs"] < PAUSE_SECS + SLACK_SECS


@pytest.mark.fault(
    "8", "a prompt that ends the runner each time, beside 3 others", "it fails alone, with a clear error", repeated=True
)
def test_a_poisoned_prompt(stack: FaultStack, seen: Seen) -> None:
    answers = Client(stack.url).begin([count(60, delay_ms=25, store=False)] * 3, n_tokens=15)
    poisoned = httpx.post(f"{stack.url}/chat", json=POISON, timeout=60)
    assert (poisoned.status_code, poisoned.json()["error"]["code"]) == (500, "runner_crashed")
    for answer in answers:
        answer.result().assert_whole(numbers(60))
    seen["told"] = poisoned.json()["error"]["message"]


def kill_runner(stack: FaultStack) -> None:
    runner = stack.process("gemma-runner")
    runner.kill()
    psutil.wait_procs([runner], timeout=5)
