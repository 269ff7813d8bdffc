"""The built-in coordinator of the GPU over HTTP, both generations of its protocol."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from redis.exceptions import RedisError

from chat.api.body_parsing import read_object
from chat.api.gpu_access import for_tenants
from chat.api.json_response import json_response
from chat.api.turn_requests import read_in_thread
from chat.schemas import gpu_answers as wire
from chat.schemas import gpu_bodies as bodies
from chat.schemas.answer_types import ErrorObject
from chat.schemas.gpu_bodies import AcquireRequest
from chat.streaming.background import in_thread, spawn
from compat.django_http import without_log_line
from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.preemption import note_version
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels
from inference.runtime.redis_client import gpu_client


@for_tenants("POST")
async def acquire(request: HttpRequest) -> JsonResponse:
    """POST /gpu/acquire: answers when the GPU is the tenant's, or will not be in time."""
    body = await read_in_thread(request, lambda request: bodies.acquire_request(read_object(request)))
    verdict = await _verdict(body)
    wait_time_ms = round(verdict.waited_secs * 1000, 1)
    if not isinstance(verdict, AcquisitionGranted):
        refusal = wire.AcquireAnswer(
            session_id=body.session_id,
            wait_time_ms=wait_time_ms,
            success=False,
            acquired_at=None,
            error=verdict.reason,
        )
        # Clients in use take every 200 for a grant. A refusal is a normal outcome: no line in the log.
        return without_log_line(json_response(refusal, status=HTTPStatus.CONFLICT))
    return json_response(
        wire.AcquireAnswer(
            session_id=body.session_id,
            wait_time_ms=wait_time_ms,
            success=True,
            acquired_at=_now(),
            error=None,
            lease_epoch=verdict.epoch,
            renew_within_ms=_renew_within_ms() if body.renews else None,
        )
    )


@for_tenants("POST")
async def renew(request: HttpRequest) -> JsonResponse:
    """POST /gpu/renew: only this coordinator knows renewal."""
    session_id = await read_in_thread(request, _session)
    config = CoordinatorConfig.from_settings()
    epoch = await in_thread(partial(api.renew, gpu_client(), config, session_id=session_id))
    return json_response(
        wire.RenewAnswer(
            success=epoch is not None,
            session_id=session_id,
            lease_epoch=epoch,
            renew_within_ms=_renew_within_ms(),
        )
    )


@for_tenants("POST")
async def release(request: HttpRequest) -> JsonResponse:
    """POST /gpu/release"""
    session_id = await read_in_thread(request, _session)
    held_secs = await in_thread(partial(api.release, gpu_client(), session_id=session_id))
    return json_response(
        wire.ReleaseAnswer(
            success=held_secs is not None,
            session_id=session_id,
            released_at=_now(),
            session_duration_ms=round((held_secs or 0.0) * 1000, 1),
        )
    )


@for_tenants("GET")
async def state(request: HttpRequest) -> JsonResponse:
    """GET /gpu/state"""
    try:
        status = await in_thread(api.status, gpu_client())
    except (RedisError, DatabaseError) as error:
        return json_response(
            wire.GpuStateAnswer(
                owner=None,
                session_id=None,
                requester=None,
                acquired_at=None,
                state=None,
                redis_connected=not isinstance(error, RedisError),
                postgres_connected=not isinstance(error, DatabaseError),
            )
        )
    return json_response(
        wire.GpuStateAnswer(
            owner=status.owner,
            session_id=status.session_id,
            requester=status.requester,
            acquired_at=status.acquired_at.isoformat() if status.acquired_at else None,
            state=status.state,
            redis_connected=True,
            postgres_connected=True,
            lease_epoch=status.epoch,
            waiting=[wire.WaitingTenant(requester=one.requester, priority=one.priority) for one in status.waiting],
            residents=status.n_residents,
        )
    )


@for_tenants("POST")
async def old_request(request: HttpRequest) -> JsonResponse:
    """POST /gemma/request: the first generation of the protocol, whose refusal is a 500."""
    task_id = await read_in_thread(request, lambda request: bodies.task_of(read_object(request)))
    config = CoordinatorConfig.from_settings()
    verdict = await _verdict(
        AcquireRequest(task_id, channels.OUR_SERVICE, 1, config.pause_secs + config.freed_secs, renews=False)
    )
    if isinstance(verdict, AcquisitionGranted):
        return json_response(wire.OldGrantAnswer(task_id=task_id, status="gpu_acquired", message="the GPU is yours"))
    error = ErrorObject(code="gpu_refused", message=verdict.reason)
    # A refusal is a normal outcome; Django would log the status as a fault.
    return without_log_line(json_response(wire.OldRefusalAnswer(error=error, detail=verdict.reason), status=500))


@for_tenants("POST")
async def old_release(request: HttpRequest, task_id: str) -> JsonResponse:
    """POST /gemma/release/{task_id}"""
    await in_thread(partial(api.release, gpu_client(), session_id=task_id))
    return json_response(wire.OldReleaseAnswer(status="released", task_id=task_id))


@for_tenants("GET")
async def old_status(request: HttpRequest) -> JsonResponse:
    """GET /status"""
    status = await in_thread(api.status, gpu_client())
    return json_response(
        wire.OldStatusAnswer(
            lock_status=wire.LockStatus(
                state=status.state,
                current_owner=status.owner,
                current_task=status.session_id,
                timestamp=_now(),
            ),
            gpu_status=wire.ResidentsStatus(residents=status.n_residents),
            task_stats=wire.TaskStats(waiting=len(status.waiting), granted=status.epoch),
        )
    )


@for_tenants("POST")
async def force_reset(request: HttpRequest) -> JsonResponse:
    """POST /admin/force-reset: the holder loses the GPU, and the transcription service resumes."""
    epoch = await in_thread(api.reset, gpu_client())
    return json_response(wire.ResetAnswer(status="reset", lease_epoch=epoch))


def _session(request: HttpRequest) -> str:
    return bodies.session_of(read_object(request))


async def _verdict(body: AcquireRequest) -> Verdict:
    """Wait for the GPU without keeping a thread. A caller that disconnects gives up its place, or its lease."""
    note_version(body.requester, body.protocol)
    waiter = Waiter(body.requester, body.session_id, body.priority)
    config = CoordinatorConfig.from_settings()
    acquisition = Acquisition(gpu_client(), config, waiter=waiter, timeout_secs=body.timeout_secs, renews=body.renews)
    try:
        # The grant comes from other processes, which send no event to this one.
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
