"""What the worker last said about itself, for other processes. Knows no HTTP."""

from typing import Any

import msgspec
from redis.exceptions import RedisError

from inference.models import Generation
from inference.monitoring.engine_metrics import EngineReport
from inference.monitoring.liveness import is_dead
from inference.runtime.redis_client import WORKER_KEY, shared_client

REPORT_TTL_SECS = 10
UNKNOWN_RUN_SECS = 5.0  # before the first run has been measured


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The worker's word about itself, refreshed every two seconds; void ten seconds after it fell silent."""

    pid: int
    name: str = ""  # of the worker, by which others of its machine see it die
    model_name: str = ""
    context_size: int = 0
    trained_context: int = 0
    kv_cache_mb: float | None = None  # None: the model file does not say
    gpu_layers: int = 0
    model_loaded: bool = False
    model_on_gpu: bool = False
    device: str = "cpu"
    runner_pid: int | None = None
    active: int = 0
    n_tokens: int = 0  # since it began
    tokens_per_second: float = 0.0
    mean_run_secs: float | None = None
    engine: EngineReport = EngineReport()
    card: str | None = None  # its name; None: there is none to lease
    vram_used_mb: int | None = None
    vram_total_mb: int | None = None
    placement: dict[str, Any] = {}  # state, card, and why it is not on the card
    coordinator: dict[str, Any] = {}  # what the lease's keeper says of itself
    n_card_commands: int = 0  # obeyed since it began


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """``report`` is None when no worker has spoken lately; the counts come from the database."""

    report: WorkerReport | None
    queue_depth: int
    active: int


def publish(report: WorkerReport) -> None:
    """Raises RedisError when Redis is away."""
    shared_client().set(WORKER_KEY, msgspec.json.encode(report), ex=REPORT_TTL_SECS)


def withdraw() -> None:
    """No worker is here any more: its last word holds no longer."""
    shared_client().delete(WORKER_KEY)


def last_report() -> WorkerReport | None:
    """None too, at once, when the worker that gave it has died on this machine: its word outlives it by seconds."""
    report = _last_word()
    return None if report is None or is_dead(report.name) else report


def _last_word() -> WorkerReport | None:
    try:
        data = shared_client().get(WORKER_KEY)
    except RedisError:  # the caller tells Redis's own state apart from the worker's
        return None
    return msgspec.json.decode(data, type=WorkerReport) if data else None


def snapshot() -> WorkerHealth:
    return WorkerHealth(
        report=last_report(),
        queue_depth=Generation.objects.waiting().count(),
        active=Generation.objects.running().count(),
    )


def mean_run_secs() -> float:
    """How long a generation has taken lately, in the hands of whichever worker."""
    report = _last_word()
    return report.mean_run_secs if report and report.mean_run_secs else UNKNOWN_RUN_SECS
