"""The state of the service at one moment, for `manage.py status`: model, GPU, queue, running answers, rates."""

from datetime import datetime
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import Error as DatabaseError
from django.db.models import Min
from django.utils import timezone
from redis.exceptions import RedisError

from inference.errors import StoreUnavailable
from inference.gpu.coordinator import api
from inference.models import Generation
from inference.monitoring.worker_report import REPORT_TTL_SECS, WorkerReport, last_report
from inference.runtime import redis_client
from inference.token_stream.reader import token_counts

MAX_ANSWERS = 20  # shown; the count has all


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    is_loaded: bool
    device: str
    context_size: int
    worker_pid: int


class GpuStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``holder`` is None while it is free; ``since`` is known for the built-in coordinator alone."""

    name: str
    holder: str | None
    since: datetime | None
    waiting: list[str]
    reason: str
    vram_used_mb: int | None
    vram_total_mb: int | None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    running: int
    waiting: int
    waiting_batch: int  # of those: at batch priority
    longest_wait_s: float


class RunningAnswer(msgspec.Struct, frozen=True, kw_only=True):
    id: UUID
    owner: str
    priority: str
    age_s: float
    prompt_tokens: int
    tokens: int


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    tokens_per_second: float
    computed_tokens_per_second: float
    cache_hit_ratio: float
    cells_used: int
    cells_cached: int
    cells_free: int


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``problem`` is empty while answers can be made."""

    time: datetime
    problem: str
    model: ModelStatus | None = None
    gpu: GpuStatus | None = None
    queue: QueueStatus | None = None
    rates: RateStatus | None = None
    answers: list[RunningAnswer] = []


def service_status() -> ServiceStatus:
    """Return what can be seen now; a store that does not answer is the problem reported."""
    now = timezone.localtime()
    try:
        redis_client.shared_client().ping()
        return _status(now, last_report())
    except (RedisError, StoreUnavailable):
        return ServiceStatus(time=now, problem="The service does not run: Redis does not answer.")
    except DatabaseError:
        return ServiceStatus(time=now, problem="The service does not run: the database cannot be read.")


def _status(now: datetime, report: WorkerReport | None) -> ServiceStatus:
    status = ServiceStatus(time=now, problem="", queue=queue_status(now), answers=running_answers(now))
    if report is None:
        problem = f"The service does not run: no worker has reported within the last {REPORT_TTL_SECS} s."
        return msgspec.structs.replace(status, problem=problem)
    engine = report.engine
    return msgspec.structs.replace(
        status,
        problem="" if report.model_loaded else "The model is being loaded.",
        model=ModelStatus(
            name=report.model_name,
            is_loaded=report.model_loaded,
            device=report.device,
            context_size=report.context_size,
            worker_pid=report.pid,
        ),
        gpu=gpu_status(report),
        rates=RateStatus(
            tokens_per_second=report.tokens_per_second,
            computed_tokens_per_second=engine.computed_tokens_per_second,
            cache_hit_ratio=engine.cache_hit_ratio,
            cells_used=engine.cells_used,
            cells_cached=engine.cells_cached,
            cells_free=engine.cells_free,
        ),
    )


def gpu_status(report: WorkerReport) -> GpuStatus | None:
    """Return None where there is no GPU to lease."""
    if report.card is None:
        return None
    holder, since, waiting = None, None, []
    if settings.GPU_COORDINATOR_URL is None:
        lease = api.status(redis_client.gpu_client())
        holder = lease.requester
        since = timezone.localtime(lease.acquired_at) if holder and lease.acquired_at else None
        waiting = [waiter.requester for waiter in lease.waiting]
    elif report.coordinator.get("state") == "held":
        holder = "this service"
    return GpuStatus(
        name=report.card,
        holder=holder,
        since=since,
        waiting=waiting,
        reason=str(report.placement.get("reason") or ""),
        vram_used_mb=report.vram_used_mb,
        vram_total_mb=report.vram_total_mb,
    )


def queue_status(now: datetime) -> QueueStatus:
    waiting = Generation.objects.waiting()
    oldest = waiting.aggregate(oldest=Min("created_at"))["oldest"]
    return QueueStatus(
        running=Generation.objects.running().count(),
        waiting=waiting.count(),
        waiting_batch=waiting.batch().count(),
        longest_wait_s=_secs(now, oldest),
    )


def running_answers(now: datetime) -> list[RunningAnswer]:
    """Return the running answers, the oldest first."""
    names = ("pk", "owner", "priority", "started_at", "n_prompt_tokens")
    rows = Generation.objects.running().order_by("started_at").only(*names)[:MAX_ANSWERS]
    counts = token_counts([row.pk for row in rows])
    return [
        RunningAnswer(
            id=row.pk,
            owner=row.owner,
            priority=row.get_priority_display().lower(),
            age_s=_secs(now, row.started_at),
            prompt_tokens=row.n_prompt_tokens,
            tokens=n_tokens,
        )
        for row, n_tokens in zip(rows, counts, strict=True)
    ]


def _secs(now: datetime, since: datetime | None) -> float:
    return round(max(0.0, (now - since).total_seconds()), 1) if since else 0.0
