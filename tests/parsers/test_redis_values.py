"""Values that another program has written to Redis under the service's keys: they count as absent."""

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.gpu.coordinator import wait_queue
from inference.gpu.coordinator.silent_subscribers import KEY, SilentSubscribers
from inference.monitoring import worker_report
from inference.runtime.redis_client import WORKER_KEY, gpu_client, shared_client
from inference.worker import gpu_commands
from tests.faults.fuzzing import NUMBERS, TEXTS
from tests.parsers.drawing import DEEP, drawn, foreign_json, objects

pytestmark = pytest.mark.usefixtures("redis_client")

NAMES = [*worker_report.WorkerReport.__struct_fields__, *wait_queue.Waiter.__struct_fields__]
values = foreign_json(objects(NAMES, NUMBERS | TEXTS | st.booleans())) | foreign_json(st.lists(NUMBERS, max_size=5))
values |= st.sampled_from(DEEP)


@drawn
@given(values)
def test_reports_of_workers(data: bytes) -> None:
    shared_client().set(WORKER_KEY, data)
    report = worker_report.last_report()
    assert report is None or isinstance(report, worker_report.WorkerReport)


@drawn
@given(values)
def test_what_was_learned_of_subscribers(data: bytes) -> None:
    client = gpu_client()
    client.hset(KEY, "set", data)
    subscribers = SilentSubscribers(client, "set", 5.0)
    assert subscribers.count(3) in range(4)
    subscribers.learn(3, 1)
    assert subscribers.count(3) in range(4)


@drawn
@given(values)
def test_waiters_of_the_gpu(data: bytes) -> None:
    client = gpu_client()
    token = str(uuid4())
    client.zadd(wait_queue.QUEUE, {token: 1.0})
    client.set(wait_queue.WAITER + token, data, ex=60)
    assert all(isinstance(waiter, wait_queue.Waiter) for waiter in wait_queue.waiting(client))


class NoHolder:
    """Takes every command; what it is called with has the declared types."""

    def hold(self, session_id: str, secs: float) -> None:
        assert isinstance(secs, float | int)

    def release_session(self, session_id: str) -> None:
        assert isinstance(session_id, str)

    def yield_gpu(self, reason: str) -> None:
        assert isinstance(reason, str)


COMMANDS: list[Any] = ["type", "session_id", "secs", "reason"]
TAGS = st.sampled_from(["GpuHoldCommand", "SessionReleaseCommand", "GpuYieldCommand"])


@drawn
@given(foreign_json(objects(COMMANDS, TAGS | NUMBERS | TEXTS)))
def test_commands(data: bytes) -> None:
    """A damaged one is an error, which the thread that reads them logs."""
    try:
        gpu_commands.execute(NoHolder(), data)
    except (ValueError, RecursionError) as error:
        assert str(error)
