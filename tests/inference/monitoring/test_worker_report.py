"""The worker's report to other processes."""

import os
import socket
from pathlib import Path

import pytest
import redis
from django.test import override_settings
from pytest_django import Settings

from inference.models import Generation
from inference.monitoring import worker_report
from inference.monitoring.liveness import LivenessLock
from inference.monitoring.worker_report import WorkerReport
from inference.runtime.redis_client import WORKER_KEY, shared_client
from tests.inference.making import preparing, queued

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_silent_worker_is_forgotten_in_time(store: "redis.Redis[bytes]") -> None:
    assert worker_report.last_report() is None
    report = WorkerReport(pid=7, model_name="m", model_loaded=True, tokens_per_second=12.5)
    worker_report.publish(report)
    assert worker_report.last_report() == report
    assert 0 < store.ttl(WORKER_KEY) <= worker_report.REPORT_TTL_SECS


def test_a_worker_that_died_on_this_machine_is_not_believed(settings: Settings, tmp_path: Path) -> None:
    """Its word would stand for ten seconds more; how long its answers took stays known."""
    settings.GEMMA_DATA_DIR = tmp_path
    worker = LivenessLock(f"{socket.gethostname()}:7:aa")
    worker.acquire()
    worker_report.publish(
        WorkerReport(pid=7, name=f"{socket.gethostname()}:7:aa", model_loaded=True, mean_run_secs=2.5)
    )
    assert worker_report.last_report() is not None
    assert worker._descriptor is not None
    os.close(worker._descriptor)  # as the kernel does it
    assert worker_report.last_report() is None
    assert worker_report.snapshot().report is None
    assert worker_report.mean_run_secs() == 2.5


def test_a_worker_that_stops_withdraws_its_report() -> None:
    """Otherwise a service that was started again would call itself healthy before its model is loaded."""
    worker_report.publish(WorkerReport(pid=7, model_loaded=True))
    worker_report.withdraw()
    assert worker_report.last_report() is None


def test_the_counts_come_from_the_rows() -> None:
    for _ in range(3):
        queued()
    preparing()
    Generation.objects.claim_next(worker="w")
    snapshot = worker_report.snapshot()
    assert (snapshot.queue_depth, snapshot.active, snapshot.report) == (3, 1, None)


def test_without_redis_there_is_no_report() -> None:
    shared_client.cache_clear()
    try:
        with override_settings(REDIS_URL="unix:///nonexistent/valkey.sock"):
            assert worker_report.last_report() is None
            assert worker_report.mean_run_secs() == worker_report.UNKNOWN_RUN_SECS
    finally:
        shared_client.cache_clear()
