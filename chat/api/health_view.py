"""GET /health: whether chats can be served now, and which part is to blame if not. Open to everybody: no addresses,
paths or error texts leave here."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from django.conf import settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from redis.exceptions import OutOfMemoryError, RedisError  # type: ignore[attr-defined]

from chat.rag import listing
from chat.rag.retrieval import remote
from chat.rag.vectors import embedding
from chat.streaming.background import in_thread
from compat.django_http import without_log_line
from inference.gpu.coordinator import api
from inference.models import Generation
from inference.monitoring.worker_report import WorkerReport, last_report
from inference.runtime import redis_client

logger = logging.getLogger(__name__)

CHECK_SECS = 1.0
# Without one of these nothing can be answered; the others cost quality only.
NEEDED = ("database", "redis", "worker")
DEPENDENCIES = (*NEEDED, "gpu_coordinator", "rag_service")


@dataclass(frozen=True)
class Check:
    """How one dependency is doing. ``ok`` None: none is configured, which is no fault."""

    ok: bool | None
    detail: str
    latency_ms: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "latency_ms": self.latency_ms, "detail": self.detail} | self.more


class NotServing(Exception):
    """A check found its dependency answering, but of no use; the text is fit for strangers."""


@dataclass
class CoordinatorStatus:
    """What the checks found on their way; a check that failed leaves its part None."""

    queue_depth: int | None = None
    active: int | None = None
    report: WorkerReport | None = None


async def view(request: HttpRequest) -> JsonResponse:
    """200 when chat can be served, 503 when not."""
    seen = CoordinatorStatus()
    # At the same time, so that the slowest decides how long an answer takes, not their sum.
    checks = await asyncio.gather(
        _timed(lambda: _database(seen)),
        _timed(_redis),
        _timed(lambda: _worker(seen)),
        _coordinator(),
        _memories(),
    )
    found = dict(zip(DEPENDENCIES, checks, strict=True))
    can_serve = all(found[name].ok for name in NEEDED)
    is_whole = can_serve and all(check.ok is not False for check in checks)
    status = "healthy" if is_whole else "degraded" if can_serve else "unhealthy"
    told: dict[str, Any] = (
        {"status": status} | _numbers(seen) | {name: check.as_json() for name, check in found.items()}
    )
    # Monitors call this every few seconds; Django would log each 503 as an error of this request.
    return without_log_line(JsonResponse(told, status=200 if can_serve else 503, headers={"Cache-Control": "no-store"}))


async def _timed(check: Callable[[], str]) -> Check:
    """Run what blocks for at most CHECK_SECS; a thread that hangs longer is left to its own timeout."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_SECS):
            detail = await in_thread(check)
    except TimeoutError:
        return Check(False, f"no answer within {CHECK_SECS:g} s", _ms(began))
    except NotServing as error:
        return Check(False, str(error), _ms(began))
    except (DatabaseError, RedisError, OSError) as error:
        logger.warning("health: %s", error)
        return Check(False, "does not answer", _ms(began))
    return Check(True, detail, _ms(began))


def _database(seen: CoordinatorStatus) -> str:
    seen.queue_depth = Generation.objects.waiting().count()
    seen.active = Generation.objects.running().count()
    return "answers"


def _redis() -> str:
    try:
        redis_client.probe()
    except OutOfMemoryError:
        raise NotServing("is full") from None
    return "answers"


def _worker(seen: CoordinatorStatus) -> str:
    report = seen.report = last_report()
    if report is None:
        raise NotServing("no worker has reported lately")
    if not report.model_loaded:
        raise NotServing("the model is not loaded")
    return f"{report.model_name} on {report.device}"


async def _coordinator() -> Check:
    """Who lends the card: somebody else's service, or our own."""
    if settings.GPU_COORDINATOR_URL is None:
        return await _timed(_own_coordinator)
    return await _remote(settings.GPU_COORDINATOR_URL)


def _own_coordinator() -> str:
    seen = api.status(redis_client.gpu_client())
    holder = f"{seen.requester} has the card" if seen.requester else "the card is free"
    return f"built in: {holder}, {len(seen.waiting)} waiting, tenants: {seen.n_residents}"


async def _memories() -> Check:
    """The home that memories have: somebody else's service, with what this process thinks of it, or our own store."""
    url = settings.RAG_SERVICE_URL
    if url is None:
        return await _timed(_own_memories)
    return replace(await _remote(url), more={"breaker": remote.breaker_for(url).state})


def _own_memories() -> str:
    found = listing.counts()
    told = f"built in: {found.transcripts} transcripts, {found.segments} segments, {found.notes} notes"
    if problem := embedding.unavailable_reason_without_loading():
        raise NotServing(f"{told}; found by their words alone: {problem}")
    waiting = f"; {found.without_vector} texts wait for their vectors" if found.without_vector else ""
    return f"{told}; found by meaning and words{waiting}"


async def _remote(url: str | None) -> Check:
    """Whether a service of somebody else answers; whatever it says about itself stays out of our answer."""
    if url is None:
        return Check(None, "not configured")
    began = time.monotonic()
    try:
        # trust_env: a proxy of the environment must not get to see, or answer for, the neighbours.
        async with httpx.AsyncClient(timeout=CHECK_SECS, trust_env=False) as remote:
            async with asyncio.timeout(CHECK_SECS):
                response = await remote.get(f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        return Check(False, "does not answer", _ms(began))
    is_ok = response.is_success
    return Check(is_ok, "answers" if is_ok else f"answers with status {response.status_code}", _ms(began))


def _numbers(seen: CoordinatorStatus) -> dict[str, Any]:
    """What is known of the model and the queue, with the same fields when nothing is."""
    report = seen.report
    return {
        "model_loaded": bool(report and report.model_loaded),
        "model_on_gpu": bool(report and report.model_on_gpu),
        "model_name": report.model_name if report else None,
        "context_size": report.context_size if report else None,
        "trained_context": report.trained_context if report else None,
        "kv_cache_mb": report.kv_cache_mb if report else None,
        "gpu_layers": report.gpu_layers if report else None,
        "queue_depth": seen.queue_depth,
        "active": seen.active,
    } | _card(report)


def _card(report: WorkerReport | None) -> dict[str, Any]:
    """What is known of the card; its memory only where there is one."""
    if report is None or report.card is None:
        return {"gpu": None}
    gpu = {"name": report.card, **report.placement, "lease": report.coordinator}
    return {"gpu": gpu, "vram_used_mb": report.vram_used_mb, "vram_total_mb": report.vram_total_mb}


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
