"""The worker's latest report about itself, published for other processes. Knows no HTTP."""

import logging
from typing import Any

import msgspec
from redis.exceptions import RedisError

from inference.models import Generation
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.liveness import is_dead
from inference.runtime.redis_client import WORKER_KEY, shared_client

log = logging.getLogger(__name__)

REPORT_TTL_SECS = 10
UNKNOWN_RUN_SECS = 5.0  # before the first run has been measured


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """Refreshed every two seconds; expires ten seconds after the last one."""

    pid: int
    name: str = ""  # of the worker, and of its liveness lock
    model_name: str = ""
    context_size: int = 0
    trained_context: int = 0
    kv_cache_mb: float | None = None  # None: not stated by the model file
    gpu_layers: int = 0
    model_loaded: bool = False
    model_on_gpu: bool = False
    device: str = "cpu"
    runner_pid: int | None = None
    active: int = 0
    n_tokens: int = 0  # since the worker started
    tokens_per_second: float = 0.0
    mean_run_secs: float | None = None
    engine: EngineReport = EngineReport()
    card: str | None = None  # the GPU's name; None: there is none to lease
    vram_used_mb: int | None = None
    vram_total_mb: int | None = None
    placement: dict[str, Any] = {}  # state, GPU, and the reason for not being on the GPU
    coordinator: dict[str, Any] = {}  # the lease client's state
    n_card_commands: int = 0  # executed since the worker started


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """``report`` is None without a live worker; the counts come from the database."""

    report: WorkerReport | None
    queue_depth: int
    active: int


def publish(report: WorkerReport) -> None:
    """Store the report. Raises RedisError."""
    shared_client().set(WORKER_KEY, msgspec.json.encode(report), ex=REPORT_TTL_SECS)


def withdraw() -> None:
    """Delete the report of a worker that stops. Raises RedisError."""
    shared_client().delete(WORKER_KEY)


def last_report() -> WorkerReport | None:
    """The report of a live worker. None, too, for one that has died on this machine before its report expired."""
    report = _stored_report()
    return None if report is None or is_dead(report.name) else report


def _stored_report() -> WorkerReport | None:
    try:
        data = shared_client().get(WORKER_KEY)
    except RedisError:  # callers check the state of Redis themselves
        return None
    try:
        return msgspec.json.decode(data, type=WorkerReport) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # written by another program
        log.warning("worker report unreadable error=%s", error)
        return None


def snapshot() -> WorkerHealth:
    return WorkerHealth(
        report=last_report(),
        queue_depth=Generation.objects.waiting().count(),
        active=Generation.objects.running().count(),
    )


def mean_run_secs() -> float:
    """Mean duration of recent generations, also of a worker that has stopped within the last seconds."""
    report = _stored_report()
    return report.mean_run_secs if report and report.mean_run_secs else UNKNOWN_RUN_SECS
