"""The built-in coordinator over HTTP, both generations of its protocol. Who has the card, the coordinator knows."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from redis.exceptions import RedisError

from chat.api.body_parsing import read_object
from chat.api.gpu_access import for_tenants
from chat.schemas import gpu_bodies as bodies
from chat.schemas.gpu_bodies import AcquireRequest
from chat.streaming.background import in_thread, spawn
from compat.django_http import without_log_line
from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels
from inference.runtime.redis_client import gpu_client

Json = dict[str, Any]


@for_tenants("POST")
async def acquire(request: HttpRequest) -> JsonResponse:
    """POST /gpu/acquire: answers when the card is theirs, or will not be in time."""
    asked = bodies.acquire_request(read_object(request))
    verdict = await _verdict(asked)
    told: Json = {"session_id": asked.session_id, "wait_time_ms": round(verdict.waited_secs * 1000, 1)}
    if isinstance(verdict, AcquisitionGranted):
        told |= {"success": True, "acquired_at": _now(), "error": None, "lease_epoch": verdict.epoch}
        return JsonResponse(told | {"renew_within_ms": _renew_within_ms() if asked.renews else None})
    return JsonResponse(told | {"success": False, "acquired_at": None, "error": verdict.reason})


@for_tenants("POST")
async def renew(request: HttpRequest) -> JsonResponse:
    """POST /gpu/renew: ours alone; the other coordinators know no renewal."""
    session_id = bodies.session_of(read_object(request))
    config = CoordinatorConfig.from_settings()
    epoch = await in_thread(partial(api.renew, gpu_client(), config, session_id=session_id))
    told = {"success": epoch is not None, "session_id": session_id, "lease_epoch": epoch}
    return JsonResponse(told | {"renew_within_ms": _renew_within_ms()})


@for_tenants("POST")
async def release(request: HttpRequest) -> JsonResponse:
    """POST /gpu/release"""
    session_id = bodies.session_of(read_object(request))
    held_secs = await in_thread(partial(api.release, gpu_client(), session_id=session_id))
    told: Json = {"success": held_secs is not None, "session_id": session_id, "released_at": _now()}
    return JsonResponse(told | {"session_duration_ms": round((held_secs or 0.0) * 1000, 1)})


@for_tenants("GET")
async def state(request: HttpRequest) -> JsonResponse:
    """GET /gpu/state"""
    reached = {"redis_connected": True, "postgres_connected": True}
    try:
        seen = await in_thread(api.status, gpu_client())
    except (RedisError, DatabaseError) as error:
        reached["redis_connected" if isinstance(error, RedisError) else "postgres_connected"] = False
        nothing = dict.fromkeys(("owner", "session_id", "requester", "acquired_at", "state"))
        return JsonResponse(nothing | reached)
    told: Json = {"owner": seen.owner, "session_id": seen.session_id, "requester": seen.requester}
    told |= {"acquired_at": seen.acquired_at and seen.acquired_at.isoformat(), "state": seen.state}
    waiting = [{"requester": waiter.requester, "priority": waiter.priority} for waiter in seen.waiting]
    return JsonResponse(told | reached | {"lease_epoch": seen.epoch, "waiting": waiting, "residents": seen.n_residents})


@for_tenants("POST")
async def old_request(request: HttpRequest) -> JsonResponse:
    """POST /gemma/request: the first generation; its refusal is a 500."""
    task_id = bodies.task_of(read_object(request))
    config = CoordinatorConfig.from_settings()
    asked = AcquireRequest(task_id, channels.US, 1, config.pause_secs + config.freed_secs, renews=False)
    verdict = await _verdict(asked)
    if isinstance(verdict, AcquisitionGranted):
        return JsonResponse({"task_id": task_id, "status": "gpu_acquired", "message": "the GPU is yours"})
    told = {"error": {"code": "gpu_refused", "message": verdict.reason}, "detail": verdict.reason}
    # A refusal is a normal outcome; Django would log the status as a fault.
    return without_log_line(JsonResponse(told, status=500))


@for_tenants("POST")
async def old_release(request: HttpRequest, task_id: str) -> JsonResponse:
    """POST /gemma/release/{task_id}"""
    await in_thread(partial(api.release, gpu_client(), session_id=task_id))
    return JsonResponse({"status": "released", "task_id": task_id})


@for_tenants("GET")
async def old_status(request: HttpRequest) -> JsonResponse:
    """GET /status"""
    seen = await in_thread(api.status, gpu_client())
    lock = {"state": seen.state, "current_owner": seen.owner, "current_task": seen.session_id, "timestamp": _now()}
    stats = {"waiting": len(seen.waiting), "granted": seen.epoch}
    return JsonResponse({"lock_status": lock, "gpu_status": {"residents": seen.n_residents}, "task_stats": stats})


@for_tenants("POST")
async def force_reset(request: HttpRequest) -> JsonResponse:
    """POST /admin/force-reset: whoever has the card loses it, and the transcription service goes on."""
    epoch = await in_thread(api.reset, gpu_client())
    return JsonResponse({"status": "reset", "lease_epoch": epoch})


async def _verdict(asked: AcquireRequest) -> Verdict:
    """Wait for the card without keeping a thread. A caller who leaves gives up his place, or what he just got."""
    waiter = Waiter(asked.requester, asked.session_id, asked.priority)
    config = CoordinatorConfig.from_settings()
    acquisition = Acquisition(gpu_client(), config, waiter=waiter, timeout_secs=asked.timeout_secs, renews=asked.renews)
    try:
        # What it waits for happens in other processes; there is nothing here to be woken by.
        while (verdict := await in_thread(acquisition.step)) is None:  # noqa: ASYNC110
            await asyncio.sleep(acquisition.pause_secs)
    except BaseException:
        spawn(_cancelled(acquisition))
        raise
    return verdict


def _cancelled(acquisition: Acquisition) -> Coroutine[Any, Any, None]:
    return in_thread(acquisition.cancel)


def _renew_within_ms() -> int:
    return round(CoordinatorConfig.from_settings().ttl_secs * 1000)


def _now() -> str:
    return timezone.now().isoformat()
