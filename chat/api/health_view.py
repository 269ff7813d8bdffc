"""GET /health: whether chats can be served now, and the state of each dependency. Open to all callers: no addresses,
paths or error texts leave here."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings
from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from msgspec.structs import replace
from redis.exceptions import OutOfMemoryError, RedisError  # type: ignore[attr-defined]

from chat.api.json_response import json_response
from chat.prompting.chat_templates import get_format
from chat.prompting.template_format import TemplateFormat
from chat.rag import listing
from chat.rag.retrieval import remote
from chat.rag.vectors import embedding, encodings
from chat.schemas.service_answers import DependencyAnswer, HealthAnswer, ProbeAnswer
from chat.streaming.background import in_check_thread
from compat.django_http import without_log_line
from inference.errors import ModelUnavailable
from inference.gpu.coordinator import api
from inference.models import Generation
from inference.monitoring.worker_report import WorkerReport, last_report
from inference.runtime import redis_client
from inference.runtime.http_calls import call_async

log = logging.getLogger(__name__)

CHECK_SECS = 1.0


class NotServing(Exception):
    """A dependency answers but is of no use; the text is public."""

    ok: bool | None = False


class NotUsed(NotServing):
    """A dependency that this installation does without."""

    ok = None


@dataclass
class _HealthFacts:
    """Results of the checks; a check that failed leaves its part None."""

    queue_depth: int | None = None
    active: int | None = None
    report: WorkerReport | None = None

    def of_model(self) -> dict[str, Any]:
        """Return the facts about model and queue, the same fields also without a worker."""
        report = self.report
        gpu_facts: dict[str, Any] = {"gpu": None}
        if report is not None and report.card is not None:  # the memory of a GPU only where there is one
            gpu = {"name": report.card, **report.placement, "lease": report.coordinator}
            gpu_facts = {"gpu": gpu, "vram_used_mb": report.vram_used_mb, "vram_total_mb": report.vram_total_mb}
        return {
            "model_loaded": bool(report and report.model_loaded),
            "model_on_gpu": bool(report and report.model_on_gpu),
            "model_name": report.model_name if report else None,
            "context_size": report.context_size if report else None,
            "trained_context": report.trained_context if report else None,
            "kv_cache_mb": report.kv_cache_mb if report else None,
            "gpu_layers": report.gpu_layers if report else None,
            "queue_depth": self.queue_depth,
            "active": self.active,
        } | gpu_facts


async def view(request: HttpRequest) -> JsonResponse:
    """Answer 200 when chat can be served, 503 when not."""
    facts = _HealthFacts()
    # At the same time: the answer takes as long as the slowest check, not as their sum.
    database, redis, worker, coordinator, memories, template = await asyncio.gather(
        _timed(lambda: _database(facts)),
        _timed(_redis),
        _timed(lambda: _worker(facts)),
        _coordinator(),
        _memories(),
        _timed(_chat_template),
    )
    fault = (facts.report.coordinator or {}).get("fault") if facts.report and settings.GPU_COORDINATOR_URL else None
    if fault and coordinator.ok:
        # The worker's experience: a coordinator whose /health is well may refuse every call for its token.
        coordinator = replace(coordinator, ok=False, detail=f"the last acquisition failed: {fault}")
    # Without one of these three nothing can be answered; the others cost quality only.
    can_serve = bool(database.ok and redis.ok and worker.ok)
    is_whole = can_serve and all(check.ok is not False for check in (coordinator, memories, template))
    answer = HealthAnswer(
        status="healthy" if is_whole else "degraded" if can_serve else "unhealthy",
        **facts.of_model(),
        database=database,
        redis=redis,
        worker=worker,
        gpu_coordinator=coordinator,
        rag_service=memories,
        chat_template=template,
    )
    # Monitors call this every few seconds; Django would log each 503 as an error of this request.
    response = json_response(answer, status=200 if can_serve else 503, headers={"Cache-Control": "no-store"})
    return without_log_line(response)


async def live(request: HttpRequest) -> JsonResponse:
    """GET /health/live: this process answers. Restarting it would mend nothing else."""
    return json_response(ProbeAnswer(status="live"), headers={"Cache-Control": "no-store"})


async def ready(request: HttpRequest) -> JsonResponse:
    """GET /health/ready: 200 when chat can be served, else 503 with the names of what is missing."""
    checks = {"database": lambda: _database(_HealthFacts()), "redis": _redis, "worker": lambda: _worker(_HealthFacts())}
    results = await asyncio.gather(*(_timed(check) for check in checks.values()))
    missing = [name for name, result in zip(checks, results, strict=True) if not result.ok]
    answer = ProbeAnswer(status="not_ready" if missing else "ready", missing=missing)
    response = json_response(answer, status=503 if missing else 200, headers={"Cache-Control": "no-store"})
    return without_log_line(response)


def _check(ok: bool | None, detail: str, latency_ms: float | None = None) -> DependencyAnswer:
    return DependencyAnswer(ok=ok, detail=detail, latency_ms=latency_ms)


async def _timed(check: Callable[[], str]) -> DependencyAnswer:
    """Run a blocking check for at most CHECK_SECS; a thread that hangs longer is left to its own timeout."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(CHECK_SECS):
            detail = await in_check_thread(check)
    except TimeoutError:
        return _check(False, f"no answer within {CHECK_SECS:g} s", _ms(began))
    except NotServing as error:
        return _check(error.ok, str(error), _ms(began))
    except (DatabaseError, RedisError, OSError) as error:
        log.warning("health check failed error=%s", error)
        return _check(False, "does not answer", _ms(began))
    except Exception:
        # Other programs write to Redis, too: whatever a check stumbles over, the others are reported.
        log.exception("health check failed")
        return _check(False, "cannot be read", _ms(began))
    return _check(True, detail, _ms(began))


def _database(facts: _HealthFacts) -> str:
    facts.queue_depth = Generation.objects.waiting().count()
    facts.active = Generation.objects.running().count()
    return "answers"


def _redis() -> str:
    try:
        redis_client.probe()
    except OutOfMemoryError:
        raise NotServing("is full") from None
    return "answers"


def _worker(facts: _HealthFacts) -> str:
    report = facts.report = last_report()
    if report is None:
        raise NotServing("no worker has reported lately")
    if not report.model_loaded:
        raise NotServing("the model is not loaded")
    return f"{report.model_name} on {report.device}"


def _chat_template() -> str:
    """Check whether dialogues have the form that the model was trained on. Loads the vocabulary at the first call."""
    try:
        chat_format = get_format()
    except ModelUnavailable as error:
        log.warning("health check failed error=%s", error)
        raise NotServing("the model file cannot be used") from None
    if chat_format.problem:
        raise NotServing(f"not used: {chat_format.problem}")
    if chat_format.name != TemplateFormat.name:
        raise NotUsed("none")
    return "used"


async def _coordinator() -> DependencyAnswer:
    """Check the GPU coordinator: another service, or the built-in one."""
    if settings.GPU_COORDINATOR_URL is None:
        return await _timed(_own_coordinator)
    return await _remote(settings.GPU_COORDINATOR_URL)


def _own_coordinator() -> str:
    status = api.status(redis_client.gpu_client())
    holder = f"{status.requester} has the GPU" if status.requester else "the GPU is free"
    return f"built in: {holder}, {len(status.waiting)} waiting, tenants: {status.n_residents}"


async def _memories() -> DependencyAnswer:
    """Check the store of memories: another service, with the state of its circuit breaker, or the built-in one."""
    url = settings.RAG_SERVICE_URL
    if url is None:
        return await _timed(_own_memories)
    return replace(await _remote(url), breaker=remote.breaker_for(url).state)


def _own_memories() -> str:
    counts = listing.counts()
    summary = f"built in: {counts.transcripts} transcripts, {counts.segments} segments, {counts.notes} notes"
    if problem := embedding.unavailable_reason_without_loading():
        raise NotServing(f"{summary}; found by their words alone: {problem}")
    waiting = f"; {counts.without_vector} texts wait for their vectors" if counts.without_vector else ""
    progress = encodings.progress()
    reembedding = f"; {progress[0]} of {progress[1]} texts are embedded anew" if progress else ""
    return f"{summary}; found by meaning and words{waiting}{reembedding}"


async def _remote(url: str | None) -> DependencyAnswer:
    """Check whether another service answers; the content of its answer is not shown."""
    if url is None:
        return _check(None, "not configured")
    began = time.monotonic()
    try:
        # trust_env: a proxy of the environment must not see, or answer for, the services of this installation.
        async with httpx.AsyncClient(timeout=CHECK_SECS, trust_env=False) as client:
            async with asyncio.timeout(CHECK_SECS):
                response = await call_async(client, "GET", f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        return _check(False, "does not answer", _ms(began))
    is_ok = response.is_success
    return _check(is_ok, "answers" if is_ok else f"answers with status {response.status_code}", _ms(began))


def _ms(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)
