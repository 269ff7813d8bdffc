"""Limits of the queue, of one caller and of simultaneous requests, and the content of a refusal."""

import pytest
import redis
from django.test import override_settings

from inference.errors import AdmissionRefused, CallerLimit, QueueFull, StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.monitoring import worker_report
from inference.queue import admission, generations
from inference.runtime import redis_client
from tests.inference.making import PARAMS, preparing, queued
from tests.inference.queue.test_claim import in_threads

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


@override_settings(QUEUE_MAX=3)
def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    for number in range(3):
        generations.check_capacity(owner="me", priority=INTERACTIVE)
        queued(f"user:{number}")
    with pytest.raises(QueueFull) as refusal:
        generations.check_capacity(owner="me", priority=INTERACTIVE)
    assert refusal.value.retry_after_secs is not None
    assert refusal.value.retry_after_secs >= 1


@override_settings(QUEUE_MAX=3)
def test_running_rows_do_not_fill_the_queue_and_preparing_ones_do() -> None:
    for _ in range(3):
        queued()
        Generation.objects.claim_next(worker="w")
    generations.check_capacity(owner="me", priority=INTERACTIVE)
    for _ in range(3):
        preparing()
    with pytest.raises(QueueFull):
        generations.check_capacity(owner="me", priority=INTERACTIVE)


@override_settings(QUEUE_MAX_PER_CALLER=2)
def test_a_caller_s_limit_counts_running_rows_too() -> None:
    queued("me")
    Generation.objects.claim_next(worker="w")
    queued("me")
    with pytest.raises(CallerLimit):
        generations.check_capacity(owner="me", priority=INTERACTIVE)
    generations.check_capacity(owner="you", priority=INTERACTIVE)
    Generation.objects.running().update(status=Status.COMPLETE)
    generations.check_capacity(owner="me", priority=INTERACTIVE)


@override_settings(QUEUE_MAX=3, QUEUE_MAX_PER_CALLER=3)
def test_rows_of_a_batch_command_lock_no_caller_out() -> None:
    for _ in range(10):
        queued("local", priority=BATCH)
    generations.check_capacity(owner="local", priority=INTERACTIVE)
    with pytest.raises(AdmissionRefused):
        generations.check_capacity(owner="local", priority=BATCH)


@override_settings(QUEUE_MAX=10)
def test_thirty_simultaneous_requests_do_not_overshoot() -> None:
    refused: list[str] = []

    def ask(number: int) -> None:
        try:
            generations.create(owner=f"user:{number}", params=PARAMS, prompt_ids=[1], timeout_secs=None)
        except QueueFull as error:
            refused.append(error.code)

    in_threads(30, ask)
    assert Generation.objects.count() == 10
    assert refused == ["queue_full"] * 20


@override_settings(REDIS_URL="unix:///nonexistent/valkey.sock")
def test_without_redis_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "shared_client", redis_nowhere)
    with pytest.raises(StoreUnavailable) as refusal:
        generations.check_capacity(owner="me", priority=INTERACTIVE)
    assert refusal.value.retry_after_secs


def redis_nowhere() -> "redis.Redis[bytes]":
    return redis.Redis(unix_socket_path="/nonexistent/valkey.sock")


@pytest.mark.parametrize(
    ("mean_run_secs", "n_to_leave", "expected"),
    [(None, 1, 2), (8.0, 1, 2), (8.0, 10, 20), (0.01, 1, 1), (900.0, 9, 120)],
)
@override_settings(GEMMA_PARALLEL=4)
def test_the_time_to_come_back_follows_measured_runs(
    mean_run_secs: float | None, n_to_leave: int, expected: int
) -> None:
    worker_report.publish(worker_report.WorkerReport(pid=1, mean_run_secs=mean_run_secs))
    assert admission.retry_after_secs(n_to_leave) == expected
