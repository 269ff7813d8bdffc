"""POST /warmup, /move-to-cpu, /release-session: move the model for callers that know their next requests.

Each sends a command to the worker and reads the result from its report. The dispatcher moves the model.
"""

import asyncio
import time
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from chat.access.callers import Caller
from chat.api.body_parsing import read_optional_object
from chat.api.gpu_access import check_operator
from chat.api.json_response import json_response
from chat.api.turn_requests import for_callers, read_in_thread
from chat.errors import Unavailable
from chat.schemas import gpu_answers as wire
from chat.schemas.gpu_bodies import chosen_session
from chat.streaming.background import in_thread
from inference.monitoring import worker_report
from inference.monitoring.worker_report import WorkerReport
from inference.worker import gpu_commands
from inference.worker.gpu_commands import GpuCommand, GpuHoldCommand, GpuYieldCommand, SessionReleaseCommand

LOOK_SECS = 0.1
LEAVE_SECS = 15.0
DEFAULT_SESSION = "warmup"
ON_CPU = ("", "cpu")  # states of a placement that is not on the GPU and not on its way


@for_callers("POST")
async def warmup(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Bring the model to the GPU and wait; on a machine without one, or while it is refused, it is ready on the CPU."""
    check_operator(caller)
    session_id = await read_in_thread(request, _session) or DEFAULT_SESSION
    report = await _report()
    if report.card is not None:
        await _send(GpuHoldCommand(session_id, settings.GPU_MAX_HOLD_SECS))
        patience_secs = settings.GPU_PAUSE_TIMEOUT + settings.GPU_FREED_TIMEOUT
        report = await _report_when(_is_decided, patience_secs, since=report)
    if not report.model_loaded:
        raise Unavailable("the model is still being loaded", code="model_unavailable", retry_after_secs=5)
    return json_response(
        wire.WarmupAnswer(
            status="ready" if report.model_on_gpu else "ready_cpu",
            model_on_gpu=report.model_on_gpu,
            reason=_reason(report),
        )
    )


@for_callers("POST")
async def move_to_cpu(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Leave the GPU now; running answers go on on the CPU."""
    check_operator(caller)
    report = await _report()
    if not report.model_on_gpu and report.placement.get("state", "") in ON_CPU:
        return json_response(wire.MoveToCpuAnswer(status="already_on_cpu", model_on_gpu=False))
    await _send(GpuYieldCommand("a caller asked for it"))
    report = await _report_when(_is_on_cpu, LEAVE_SECS, since=report)
    if not _is_on_cpu(report):
        raise Unavailable("the model is still leaving the GPU", code="still_leaving", retry_after_secs=1)
    return json_response(wire.MoveToCpuAnswer(status="success", model_on_gpu=False))


@for_callers("POST")
async def release_session(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Let a session, or every session when none is named, no longer keep the GPU."""
    check_operator(caller)
    session_id = await read_in_thread(request, _session)
    report = await _report()
    if report.card is not None:
        await _send(SessionReleaseCommand(session_id))
    return json_response(wire.ReleaseSessionAnswer(status="released" if report.model_on_gpu else "already_on_cpu"))


def _session(request: HttpRequest) -> str:
    """Return the session of the body; existing callers send none."""
    return chosen_session(read_optional_object(request))


def _is_on_cpu(report: WorkerReport) -> bool:
    return not report.model_on_gpu and report.placement.get("state", "") in ON_CPU


def _is_decided(report: WorkerReport) -> bool:
    is_refused = report.coordinator.get("state") == "refused"
    # A placement with a reason not to request the GPU does not leave this state.
    does_not_ask = report.placement.get("state") == "cpu" and bool(report.placement.get("reason"))
    return report.model_on_gpu or is_refused or does_not_ask


def _reason(report: WorkerReport) -> str | None:
    if report.model_on_gpu:
        return None
    return report.placement.get("reason") or (None if report.card else "this service has no GPU")


async def _send(command: GpuCommand) -> None:
    if not await in_thread(gpu_commands.send, command):
        raise Unavailable("no worker listens", code="no_worker", retry_after_secs=5)


async def _report() -> WorkerReport:
    report = await in_thread(worker_report.last_report)
    if report is None:
        raise Unavailable("no worker has reported lately", code="no_worker", retry_after_secs=5)
    return report


async def _report_when(
    is_done: Callable[[WorkerReport], bool], patience_secs: float, *, since: WorkerReport
) -> WorkerReport:
    """Return the first report that obeyed a command after ``since`` and meets the condition, or the last in time."""
    deadline = time.monotonic() + patience_secs
    # The worker publishes its reports without an event for this process.
    while True:
        report = await _report()
        is_answer = (report.pid, report.n_card_commands) != (since.pid, since.n_card_commands)
        if (is_answer and is_done(report)) or time.monotonic() >= deadline:
            return report
        await asyncio.sleep(LOOK_SECS)
