"""Event loop of the dispatcher, one step at a time: handle events, check the clock, submit work.

Knows no thread and no queue.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import count

from inference.dispatch import crash_attribution
from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.cache_purge import CachePurges
from inference.dispatch.events import (
    AddGeneration,
    Event,
    HoldGpu,
    PurgeStates,
    ReleaseAll,
    ReleaseHold,
    Shutdown,
    Sink,
    StopGeneration,
    YieldGpu,
)
from inference.dispatch.generation_state import ClaimState, GenerationOutcome
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_residency import GpuResidency
from inference.dispatch.gpu_session import CPU, GPU
from inference.dispatch.runner_launcher import (
    FrameReceived,
    LaunchEvent,
    RunnerExited,
    RunnerFactory,
    RunnerStarted,
    RunnerStartFailed,
)
from inference.dispatch.runner_slot import RUNNER_STOP_SECS, RunnerSlot
from inference.dispatch.state_folder import CheckpointFiles
from inference.engine.process.client import HAS_LEFT
from inference.engine.protocol.frames import (
    Alive,
    CacheExported,
    Checkpointed,
    Deferred,
    Ended,
    Exported,
    Frame,
    FromRunner,
    Imported,
    PrefillProgress,
    Purged,
    Rejected,
    Step,
)
from inference.enums import StreamState
from inference.gpu.lease.port import LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused
from inference.queue.results import TIMED_OUT, failed

log = logging.getLogger(__name__)

# A runner acknowledges a cancel before its next step, however long the present one takes. Steps may be on their way.
STOP_PATIENCE_SECS, STOP_PATIENCE_STEPS = 10.0, 3
STARTS_BEFORE_FAILING = 3


class EventLoop:
    """Called by one thread; ``post`` is called from the threads of runners and of the lease client."""

    def __init__(
        self,
        make_runner: RunnerFactory,
        sink: Sink,
        post: Callable[[Event], None],
        gpu: GpuParts | None,
        checkpoints: CheckpointFiles,
    ) -> None:
        numbers = count(1)
        self._checkpoints = checkpoints
        self.generations = ActiveGenerations(sink, self._send, checkpoints)
        self.cpu = RunnerSlot(CPU, make_runner, post, numbers)
        self.gpu = None if gpu is None else RunnerSlot(GPU, gpu.make_runner, post, numbers)
        self.residency: GpuResidency | None = None
        if gpu is not None and self.gpu is not None:
            self.residency = GpuResidency(gpu, self.generations, self.cpu, self.gpu, post)
        self._purges = CachePurges(self.slots)
        self._is_releasing = False

    @property
    def target(self) -> RunnerSlot:
        """The slot whose runner new work is submitted to."""
        return self.gpu if self.gpu and self.residency and self.residency.accepts_work else self.cpu

    @property
    def slots(self) -> list[RunnerSlot]:
        return [self.cpu] if self.gpu is None else [self.cpu, self.gpu]

    def kill_runners(self, reason: str) -> None:
        """Kill all runners; RunnerExited follows, with blame and a new runner."""
        for slot in self.slots:
            if not slot.is_empty:
                slot.kill(reason)

    def step(self, events: Sequence[Event], now: float) -> bool:
        """Handle events, check the clock, submit work; False after Shutdown."""
        for event in events:
            if isinstance(event, Shutdown):
                # Another tenant may wait for the GPU, which is released after this.
                is_gpu_used = self.gpu is not None and not self.gpu.is_empty
                self.cpu.stop(RUNNER_STOP_SECS + (0.0 if is_gpu_used else event.spare_secs))
                return False
            try:
                self._handle(event, now)
            except Exception:
                # The runners may hold other sequences than the registry now: end them, so that all is replayed whole.
                log.exception("event not handled event=%s", type(event).__name__)
                self.kill_runners("an event of it was not handled")
        self._check_clock(now)
        self._submit_work(now)
        return True

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case AddGeneration(generation) if self._is_releasing:
                generation.end(GenerationOutcome(ClaimState.RELEASED))
            case AddGeneration(generation):
                self.generations.add(generation, now)
                if self.target.ready is None:
                    self.generations.report(generation, StreamState.LOADING)
                if self.residency is not None:
                    self.residency.demand.work_arrived(now)
            case StopGeneration(generation_id, ending, epoch):
                active = self.generations.by_id.get(generation_id)
                if active is not None and epoch in (None, active.epoch):
                    self.generations.stop(active, ending, now)
            case ReleaseAll():
                self._is_releasing = True
                self.generations.release_all()
            case RunnerStarted() | RunnerStartFailed() | FrameReceived() | RunnerExited():
                self._handle_runner(event, now)
            case PurgeStates(order):
                self._purges.begin(order)
            case HoldGpu() | ReleaseHold() | YieldGpu() if self.residency is not None:
                self.residency.handle_command(event, now)
            case LeaseGranted() | LeaseRefused() | LeaseRecalled() | LeaseLost() if self.residency is not None:
                self.residency.handle_lease_event(event, now)

    # ---- runners ----

    def _handle_runner(self, event: LaunchEvent, now: float) -> None:
        slot = next((slot for slot in self.slots if slot.owns(event)), None)
        if slot is None:  # an earlier runner of its slot
            return
        match event:
            case RunnerStarted():
                failure = slot.runner_started(event)
                if failure is not None:
                    self._start_failed(slot, failure, now)
                    return
                self._purges.runner_started(slot)
                if slot is self.gpu and self.residency is not None:
                    self.residency.gpu_ready(now)
            case RunnerStartFailed():
                self._start_failed(slot, event, now)
            case FrameReceived(frame=frame):
                slot.note_frame()
                self._handle_frame(slot, frame, now)
            case RunnerExited() if slot.runner_exited(event.reason, now):
                self._purges.runner_exited(slot)
                self._runner_exited(slot, event, now)
                self._checkpoints.runner_exited(slot.last_pid, self.generations.by_id.values())

    def _start_failed(self, slot: RunnerSlot, event: RunnerStartFailed, now: float) -> None:
        slot.start_failed(event, now)
        self._purges.runner_exited(slot)
        if self.residency is not None and slot is self.gpu:
            self.residency.gpu_exited(event.message, now, has_left=event.code == HAS_LEFT)
        elif slot.n_failed >= STARTS_BEFORE_FAILING:
            for generation in self.generations.unassigned():
                self.generations.remove(
                    generation, GenerationOutcome(ClaimState.ENDED, failed("model_unavailable", event.message))
                )

    def _runner_exited(self, slot: RunnerSlot, event: RunnerExited, now: float) -> None:
        reason = event.reason
        if self.residency is not None and slot is self.gpu:
            is_failure = self.residency.gpu_exited(reason, now, has_left=event.has_left)
            message = "the model on the GPU ended; the answer goes on on the CPU"
            self.generations.runner_exited(
                GPU, reason, state=StreamState.YIELDING, message=message, is_failure=is_failure
            )
            return
        n_sequences = len(self.generations.on_device(CPU))
        log.error("runner exited device=%s n_sequences=%d reason=%s", CPU, n_sequences, reason)
        message = "the model process ended and is being started again"
        self.generations.runner_exited(CPU, reason, state=StreamState.LOADING, message=message)
        if self.residency is not None:
            self.residency.cpu_exited(now)

    def _handle_frame(self, slot: RunnerSlot, frame: FromRunner, now: float) -> None:
        match frame:
            case Step():
                self.generations.handle_step(slot.device, frame, now)
                if slot is self.cpu and self.residency is not None:
                    self.residency.demand.speed.note_step(frame)
            case Deferred() | PrefillProgress() | Checkpointed() | Ended() | Rejected():
                self.generations.handle_frame(slot.device, frame, now)
            case Alive():
                pass  # noted as a sign of life, as every frame is
            case Purged():
                self._purges.note_reply(slot, frame)
            case Exported() | CacheExported() | Imported() if self.residency is not None:
                self.residency.handle_reply(slot.device, frame, now)
            case _:
                log.warning("unexpected frame ignored device=%s frame=%s", slot.device, type(frame).__name__)

    # ---- after the events ----

    def _check_clock(self, now: float) -> None:
        for generation in list(self.generations.by_id.values()):
            if generation.deadline is not None and now >= generation.deadline:
                self.generations.stop(generation, TIMED_OUT, now)
        for slot in self.slots:
            slot.check_silence(now, is_busy=bool(self.generations.on_device(slot.device)))
            for stop in self.generations.stopping(slot.device):
                if now - stop.sent_at > STOP_PATIENCE_SECS and stop.n_steps >= STOP_PATIENCE_STEPS:
                    slot.kill("it computes on and does not acknowledge a cancel")
        if self.residency is not None and not self._is_releasing:
            self.residency.tick(now)

    def _submit_work(self, now: float) -> None:
        if self.cpu.can_start(now) and not self._is_releasing:
            self.cpu.start()
        target = self.target
        if target.ready is None:
            return
        admissible = crash_attribution.admissible(self.generations.by_id.values())
        # A runner compiles its first grammar for a second or two, and the frames behind that one wait.
        for generation in sorted(admissible, key=lambda generation: bool(generation.params.grammar)):
            if not generation.tokens:
                self.generations.report(generation, StreamState.PREFILL, progress=0.0, reason=self._reason(target))
            self.generations.submit(generation, target.device, now)

    def _reason(self, target: RunnerSlot) -> str | None:
        """Return why an answer begins on the CPU although there is a GPU."""
        return self.residency.demand.reason or None if self.residency is not None and target is self.cpu else None

    def _send(self, device: str, frame: Frame) -> None:
        next(slot for slot in self.slots if slot.device == device).send(frame)
