"""The card: asked for, moved to, left again. Drives the stages from the lease's events, the two runners and the clock.

The lease is held from LOADING to the end of LEAVING, and released once the runner is gone and its memory is free.
"""

import logging
import threading
import time
from typing import Any

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.events import GpuCommand, HoldGpu, ReleaseHold, YieldGpu
from inference.dispatch.gpu_demand import FOREVER, GpuDemand
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import GpuSession
from inference.dispatch.gpu_state import ACCEPTS_WORK, WITH_LEASE, GpuState, gpu_state_machine
from inference.dispatch.lease_release import LeaseRelease
from inference.dispatch.migration import Migration
from inference.dispatch.runner_slot import RunnerSlot
from inference.engine.protocol.frames import CacheExported, Exported, Imported
from inference.enums import StreamState
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post
from inference.gpu.records.hand_over import HandOverRecord

log = logging.getLogger(__name__)

END_STEP_SECS = 0.01


class GpuResidency:
    """One thread calls everything but ``describe``."""

    def __init__(
        self, parts: GpuParts, generations: ActiveGenerations, cpu: RunnerSlot, gpu: RunnerSlot, post: Post
    ) -> None:
        self._parts, self._generations, self._gpu = parts, generations, gpu
        self._states = gpu_state_machine()
        self._lease_client = parts.make_lease_client(post)
        self._folder = parts.folder
        self.asking = GpuDemand(self._lease_client, generations, parts.obstacle)
        self._stay = GpuSession(0.0, 0)
        self._ways = Migration(cpu, gpu, generations, parts.folder)
        self._back = LeaseRelease(parts.card, self._lease_client, gpu)
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
        return {"state": self.state.value, "card": self._parts.card.name, "reason": self.asking.reason}

    def describe_lease_client(self) -> dict[str, Any]:
        return self._lease_client.describe()

    def begin(self) -> None:
        self._lease_client.begin()

    def end(self, timeout_secs: float) -> None:
        """The worker stops: no memory of the card in use, then no lease."""
        self._gpu.stop(0.0)
        self._gpu.end(timeout_secs)
        if self.state in WITH_LEASE:
            self._stay.leave("the worker stopped", self._states.since)
            self._back.process_gone(time.monotonic())
            while not self._back.is_done(self._stay, now := time.monotonic()):
                time.sleep(END_STEP_SECS)
            self._parts.record(self._record(now))
        self._lease_client.end(timeout_secs)
        self._folder.close()

    # ---- what others say ----

    def handle_command(self, event: GpuCommand, now: float) -> None:
        match event:
            case HoldGpu(session_id, secs):
                self.asking.sessions.hold(session_id, secs, now)
                self.asking.work_arrived(now)
            case ReleaseHold(session_id):
                self.asking.sessions.release(session_id)
            case YieldGpu(reason):
                self.asking.sessions.release("")
                self.asking.rest(FOREVER)
                if self.state is GpuState.WAITING:
                    self._withdraw(now)
                self._leave(reason, now)

    def handle_lease_event(self, event: LeaseEvent, now: float) -> None:
        match event:
            case LeaseGranted(lease):
                if self.state is GpuState.WAITING:
                    self._granted(event, now)
                else:  # withdrawn while it was granted
                    self._lease_client.release(lease, {"ended_because": "nothing needs it any more"})
            case LeaseRefused(reason, retry_in_secs):
                if self.state is GpuState.WAITING:
                    log.info("the card was refused, next try in %.1f s: %s", retry_in_secs, reason)
                    self.asking.reason = reason
                    self._say_to_all(StreamState.WAITING_FOR_GPU, reason)
            case LeaseRecalled(lease, reason) if lease == self._stay.lease:
                self.asking.rest(now + self._parts.policy.min_hold_secs)
                self._leave(reason, now)
            case LeaseLost(lease, reason) if lease == self._stay.lease and self.state in WITH_LEASE:
                self._drop(reason, now)
            case _:
                log.debug("news of a former lease: %s", event)

    def moved(self, device: str, frame: Exported | CacheExported | Imported, now: float) -> None:
        """A runner has given out, or taken in, what it was asked to."""
        self._ways.answered(device, frame, self._stay)
        self._look_at_moves(now)

    def gpu_ready(self, now: float) -> None:
        if self.state is not GpuState.LOADING:  # given up, and ready in the same moment
            self._gpu.kill("it came too late", is_expected=True)
            return
        stay = self._stay
        stay.ready_at, stay.n_ended_before = now, self._generations.n_ended
        self.asking.pace.note_card(now - stay.asked_at)
        for generation in self._generations.by_id.values():
            generation.gpu_load_ms += 1000 * (now - max(stay.granted_at or now, generation.added_at or now))
        self._states.move(GpuState.MOVING, now)
        self.asking.reason = ""
        self._ways.go_up(now)
        self._look_at_moves(now)

    def gpu_exited(self, reason: str, now: float) -> bool:
        """The card's process has ended, or never began; whether nobody here wanted that."""
        is_failure = self.state not in (GpuState.LEAVING, GpuState.CPU)
        if is_failure:
            self._stay.has_failed = True
            self.asking.reason = f"the model on the GPU ended: {reason}"
            self._stay.leave(self.asking.reason, now)
            self._states.move(GpuState.LEAVING, now)
        self._back.process_gone(now)
        return is_failure

    def cpu_exited(self, now: float) -> None:
        self._ways.cpu_exited()
        self._look_at_moves(now)

    # ---- the clock ----

    def tick(self, now: float) -> None:
        """Whatever follows from the time that has passed, or from what generations here."""
        for session_id in self._generations.take_ended_sessions():
            self.asking.sessions.prolong(session_id, now)
        match self.state:
            case GpuState.CPU if self._ways.is_settled:
                ticket = self.asking.ticket(now)
                if ticket is not None:
                    self._ask(ticket, now)
            case GpuState.WAITING if not self.asking.go_on(now):
                self._withdraw(now)
            case GpuState.LOADING | GpuState.MOVING | GpuState.GPU:
                self._look_for_reason_to_leave(now)
            case GpuState.YIELDING if now - self._states.since > self._parts.policy.yield_patience_secs:
                self._drop("it did not give its work out in time", now)
            case GpuState.LEAVING if self._gpu.is_empty and self._back.is_done(self._stay, now):
                self._close(now)

    def _look_for_reason_to_leave(self, now: float) -> None:
        if self._generations.by_id or self.state is not GpuState.GPU:
            self._idle_since = now
        reason = self._parts.policy.reason_to_leave(
            held_secs=self._stay.held_secs(now),
            idle_secs=now - self._idle_since,
            is_held=bool(self.asking.sessions.present(now)),
        )
        if reason is not None:
            if self._generations.by_id:
                self.asking.rest(now + self._parts.policy.rest_secs)
            # A load that takes as long as the longest stay would do so again.
            self._stay.has_failed = self.state is GpuState.LOADING
            self._leave(reason, now)

    # ---- moves ----

    def _ask(self, ticket: int, now: float) -> None:
        self._stay = GpuSession(now, ticket)
        self._states.move(GpuState.WAITING, now)
        self.asking.go_on(now)
        self._say_to_all(StreamState.WAITING_FOR_GPU, None)

    def _granted(self, event: LeaseGranted, now: float) -> None:
        stay = self._stay
        stay.lease, stay.granted_at = event.lease, now
        self.asking.granted()
        for generation in self._generations.by_id.values():
            generation.gpu_wait_ms += 1000 * (now - max(stay.asked_at, generation.added_at or now))
        self._states.move(GpuState.LOADING, now)
        self._say_to_all(StreamState.LOADING, None)
        self._gpu.start()
        self._ways.copy_ahead()

    def _look_at_moves(self, now: float) -> None:
        if self.state is GpuState.MOVING and self._ways.is_up():
            self._states.move(GpuState.GPU, now)
            self._idle_since = now
        elif self.state is GpuState.YIELDING and self._ways.is_down():
            self._gpu.kill(self._stay.ended_because, is_expected=True)
            self._states.move(GpuState.LEAVING, now)

    def _leave(self, because: str, now: float) -> None:
        """With everything that is there, as soon as there is something to save."""
        if self.state is GpuState.LOADING:
            self._drop(because, now)
        elif self.state in ACCEPTS_WORK:
            log.info("leaving the card: %s", because)
            self._stay.leave(because, now)
            self._stay.n_served = self._generations.n_ended - self._stay.n_ended_before
            self._states.move(GpuState.YIELDING, now)
            for generation in self._generations.on(self._gpu.device):
                self._generations.say(generation, StreamState.YIELDING, reason=because)
            self._ways.go_down(now)

    def _drop(self, because: str, now: float) -> None:
        """At once, and without what is there: its generations go on from their tokens."""
        self._stay.leave(because, now)
        self._gpu.kill(because, is_expected=True)
        if self.state is not GpuState.LEAVING:
            self._states.move(GpuState.LEAVING, now)
        self._back.process_gone(now)

    def _withdraw(self, now: float) -> None:
        """The card never came, so that there is nothing to record."""
        self.asking.withdraw()
        self._states.move(GpuState.CPU, now)

    def _close(self, now: float) -> None:
        if self._stay.has_failed:
            self.asking.breaker.failed(self._stay.ticket)
        elif self._stay.ready_at is not None:
            self.asking.breaker.succeeded(self._stay.ticket)
        self._states.move(GpuState.CPU, now)
        self._ways.stop()
        record = [self._record(now)]
        threading.Thread(target=self._parts.record, args=record, name="hand-over record", daemon=True).start()

    def _record(self, now: float) -> HandOverRecord:
        return self._stay.record(now, is_simulated=self._parts.is_simulated)

    def _say_to_all(self, state: StreamState, reason: str | None) -> None:
        for generation in self._generations.by_id.values():
            self._generations.say(generation, state, reason=reason)
