"""Residency of the model on the GPU: drives the states of ``gpu_state`` from lease events, runners and the clock.

The lease is held from LOADING to the end of LEAVING, and released once the runner has exited and its memory is free.
``gpu_demand`` decides whether to request it, ``migration`` moves the states, ``lease_release`` decides when it is
released.
"""

import logging
import time
from typing import Any

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.events import GpuCommand, HoldGpu, ReleaseHold, YieldGpu
from inference.dispatch.gpu_demand import UNTIL_NEW_WORK, GpuDemand
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import GpuSession
from inference.dispatch.gpu_state import ACCEPTS_WORK, WITH_LEASE, GpuState, gpu_state_machine
from inference.dispatch.lease_release import LeaseRelease
from inference.dispatch.migration import Migration
from inference.dispatch.runner_slot import RunnerSlot
from inference.engine.protocol.frames import CacheExported, Exported, Imported
from inference.enums import StreamState
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post

log = logging.getLogger(__name__)

END_POLL_SECS = 0.01


class GpuResidency:
    """Called by one thread, except for ``describe`` and ``describe_lease_client``."""

    def __init__(
        self, parts: GpuParts, generations: ActiveGenerations, cpu: RunnerSlot, gpu: RunnerSlot, post: Post
    ) -> None:
        self._parts, self._generations, self._gpu = parts, generations, gpu
        self._states = gpu_state_machine()
        self._lease_client = parts.make_lease_client(post)
        self._folder = parts.folder
        self.demand = GpuDemand(self._lease_client, generations, parts.obstacle)
        self._session = GpuSession(0.0, 0)
        self._migration = Migration(cpu, gpu, generations, parts.folder)
        self._lease_release = LeaseRelease(parts, self._lease_client, gpu)
        self._idle_since = 0.0

    @property
    def state(self) -> GpuState:
        return self._states.now

    @property
    def accepts_work(self) -> bool:
        return self.state in ACCEPTS_WORK

    @property
    def is_leaving(self) -> bool:
        return self.state is GpuState.LEAVING

    def describe(self) -> dict[str, Any]:
        return {"state": self.state.value, "card": self._parts.device.name, "reason": self.demand.reason}

    def describe_lease_client(self) -> dict[str, Any]:
        return self._lease_client.describe()

    def begin(self) -> None:
        self._lease_client.begin()

    def end(self, timeout_secs: float) -> None:
        """Shut down in order: the runner, so that the memory is free; then the lease; then the lease client."""
        self._gpu.stop(0.0)
        self._gpu.end(timeout_secs)
        if self.state in WITH_LEASE:
            self._note_end("the worker stopped", self._states.since)
            self._lease_release.process_exited(time.monotonic())
            while not self._lease_release.is_done(self._session, now := time.monotonic()):
                time.sleep(END_POLL_SECS)
            self._session.note_tenants(now, are_waiting=self._lease_client.is_wanted_elsewhere)
            self._lease_release.record(self._session, now, waits=True)
        self._lease_client.end(timeout_secs)
        self._folder.close()

    # ---- events ----

    def handle_command(self, event: GpuCommand, now: float) -> None:
        match event:
            case HoldGpu(session_id, secs):
                self.demand.holds.hold(session_id, secs, now)
                self.demand.work_arrived(now)
            case ReleaseHold(session_id):
                self.demand.holds.release(session_id)
            case YieldGpu(reason):
                self.demand.holds.release("")
                self.demand.pause(UNTIL_NEW_WORK)
                if self.state is GpuState.WAITING:
                    self._withdraw(now)
                self._leave(reason, now)

    def handle_lease_event(self, event: LeaseEvent, now: float) -> None:
        match event:
            case LeaseGranted(lease):
                if self.state is GpuState.WAITING:
                    self._granted(event, now)
                else:  # withdrawn while the grant was on its way
                    self._lease_client.release(lease, {"ended_because": "nothing needs it any more"})
            case LeaseRefused(reason, retry_in_secs):
                if self.state is GpuState.WAITING:
                    if retry_in_secs > 0:
                        log.info("gpu lease refused retry_in_secs=%.1f reason=%s", retry_in_secs, reason)
                    else:
                        log.info("gpu lease not granted yet, waiting in the queue reason=%s", reason)
                    self.demand.reason = reason
                    self._report_to_all(StreamState.WAITING_FOR_GPU, reason)
            case LeaseRecalled(lease, reason) if lease == self._session.lease:
                self.demand.pause(now + self._parts.policy.min_hold_secs)
                self._leave(reason, now)
            case LeaseLost(lease, reason) if lease == self._session.lease and self.state in WITH_LEASE:
                self._drop(reason, now)
            case _:
                log.debug("event of an earlier lease ignored event=%s", event)

    def handle_reply(self, device: str, frame: Exported | CacheExported | Imported, now: float) -> None:
        """Take in the reply of a runner to an export or import."""
        self._migration.handle_reply(device, frame, self._session.moves)
        self._check_migration(now)

    def gpu_ready(self, now: float) -> None:
        if self.state is not GpuState.LOADING:  # the session ended while the runner started
            self._gpu.kill("it became ready too late", is_expected=True)
            return
        session = self._session
        session.ready_at, session.n_ended_before = now, self._generations.n_ended
        self.demand.speed.note_session_start(now - session.requested_at)
        granted_at = now if session.granted_at is None else session.granted_at
        for generation in self._generations.by_id.values():
            generation.timing.note_gpu_ready(granted_at, now)
        self._states.move(GpuState.MOVING, now)
        self.demand.reason = ""
        self._migration.move_to_gpu(now)
        self._check_migration(now)

    def gpu_exited(self, reason: str, now: float, *, has_left: bool = False) -> bool:
        """The GPU's process has exited or did not start; return whether that was a failure.

        ``has_left``: the lease had not been renewed in time, as after a suspension of this process."""
        is_unexpected = self.state not in (GpuState.LEAVING, GpuState.CPU)
        is_failure = is_unexpected and not has_left
        if is_failure:
            self._session.has_failed = True
            self.demand.reason = f"the model on the GPU ended: {reason}"
            self._note_end(self.demand.reason, now)
        if is_unexpected:
            self._note_end("the lease was not renewed in time", now)
            self._states.move(GpuState.LEAVING, now)
        self._lease_release.process_exited(now)
        return is_failure

    def cpu_exited(self, now: float) -> None:
        self._migration.cpu_exited()
        self._check_migration(now)

    # ---- the clock ----

    def tick(self, now: float) -> None:
        """Act on the time that has passed and on the demand."""
        for session_id in self._generations.take_ended_sessions():
            self.demand.holds.prolong(session_id, now)
        self._session.note_tenants(now, are_waiting=self._lease_client.is_wanted_elsewhere)
        match self.state:
            case GpuState.CPU if self._migration.is_settled:
                ticket = self.demand.admit(now)
                if ticket is not None:
                    self._request(ticket, now)
            case GpuState.WAITING if not self.demand.refresh(now):
                self._withdraw(now)
            case GpuState.LOADING | GpuState.MOVING | GpuState.GPU:
                self._leave_if_due(now)
            case GpuState.YIELDING if now - self._states.since > self._parts.policy.yield_patience_secs:
                self._drop("its states were not exported in time", now)
            case GpuState.LEAVING if self._gpu.is_empty and self._lease_release.is_done(self._session, now):
                self._close(now)

    def _leave_if_due(self, now: float) -> None:
        if self._generations.by_id or self.state is not GpuState.GPU:
            self._idle_since = now
        reason = self._parts.policy.reason_to_leave(
            held_secs=self._session.held_secs(now),
            idle_secs=now - self._idle_since,
            is_held=bool(self.demand.holds.current(now)),
            # A load or move that takes so long is given up in any case.
            is_wanted=self.state is not GpuState.GPU or self._lease_client.is_wanted_elsewhere,
        )
        if reason is None:
            return
        if self._generations.by_id:
            self.demand.pause(now + self._parts.policy.rest_secs)
        # A load that took as long as the longest session would do so again.
        self._session.has_failed = self.state is GpuState.LOADING
        self._leave(reason, now)

    # ---- transitions ----

    def _request(self, ticket: int, now: float) -> None:
        self._session = GpuSession(now, ticket)
        self._states.move(GpuState.WAITING, now)
        self.demand.refresh(now)
        self._report_to_all(StreamState.WAITING_FOR_GPU, None)

    def _granted(self, event: LeaseGranted, now: float) -> None:
        session = self._session
        session.lease, session.granted_at = event.lease, now
        self.demand.granted()
        for generation in self._generations.by_id.values():
            generation.timing.note_grant(session.requested_at, now)
        self._states.move(GpuState.LOADING, now)
        self._report_to_all(StreamState.LOADING, None)
        self._gpu.start()
        self._migration.copy_ahead()

    def _check_migration(self, now: float) -> None:
        if self.state is GpuState.MOVING and self._migration.is_on_gpu():
            self._states.move(GpuState.GPU, now)
            self._idle_since = now
        elif self.state is GpuState.YIELDING and self._migration.is_on_cpu():
            self._gpu.kill(self._session.ended_because, is_expected=True)
            self._states.move(GpuState.LEAVING, now)

    def _leave(self, reason: str, now: float) -> None:
        """Begin to leave the GPU; from the states that accept work everything is moved to the CPU first."""
        if self.state is GpuState.LOADING:
            self._drop(reason, now)
        elif self.state in ACCEPTS_WORK:
            log.info("leaving the GPU reason=%s", reason)
            self._note_end(reason, now)
            self._states.move(GpuState.YIELDING, now)
            for generation in self._generations.on_device(self._gpu.device):
                self._generations.report(generation, StreamState.YIELDING, reason=reason)
            self._migration.move_to_cpu(now)

    def _drop(self, reason: str, now: float) -> None:
        """Leave at once; the generations on the GPU are computed again from their tokens."""
        self._note_end(reason, now)
        self._gpu.kill(reason, is_expected=True)
        if self.state is not GpuState.LEAVING:
            self._states.move(GpuState.LEAVING, now)
        self._lease_release.process_exited(now)

    def _note_end(self, reason: str, now: float) -> None:
        """Note why the session ends, and how many answers it had a part in: ended ones, and those that go on."""
        session = self._session
        if session.leave_at is None and session.ready_at is not None:
            n_on_gpu = len(self._generations.on_device(self._gpu.device))
            session.n_served = self._generations.n_ended - session.n_ended_before + n_on_gpu
        session.leave(reason, now)

    def _withdraw(self, now: float) -> None:
        """Give up the request; a session without a grant is not recorded."""
        self.demand.withdraw()
        self._states.move(GpuState.CPU, now)

    def _close(self, now: float) -> None:
        if self._session.has_failed:
            self.demand.breaker.failed(self._session.ticket)
        elif self._session.ready_at is not None:
            self.demand.breaker.succeeded(self._session.ticket)
        self._states.move(GpuState.CPU, now)
        self._migration.gpu_exited()
        self._lease_release.record(self._session, now)

    def _report_to_all(self, state: StreamState, reason: str | None) -> None:
        for generation in self._generations.by_id.values():
            self._generations.report(generation, state, reason=reason)
