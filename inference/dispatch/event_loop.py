"""One step at a time: events taken in, the clock looked at, work given out. Knows no thread and no queue."""

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
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, Outcome
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
from inference.engine.protocol.frames import (
    CacheExported,
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

STOP_PATIENCE_SECS = 10.0  # a runner answers a cancel within one step; one that does not is stuck
STARTS_BEFORE_FAILING = 3


class EventLoop:
    """One thread calls every method; ``post`` is called from the threads of runners and of the lease client."""

    def __init__(
        self, make_runner: RunnerFactory, sink: Sink, post: Callable[[Event], None], gpu: GpuParts | None
    ) -> None:
        numbers = count(1)
        self.generations = ActiveGenerations(sink, self._send)
        self.cpu = RunnerSlot(CPU, make_runner, post, numbers)
        self.gpu = None if gpu is None else RunnerSlot(GPU, gpu.make_runner, post, numbers)
        self.residency: GpuResidency | None = None
        if gpu is not None and self.gpu is not None:
            self.residency = GpuResidency(gpu, self.generations, self.cpu, self.gpu, post)
        self._purges = CachePurges(self.slots)
        self._is_releasing = False

    @property
    def place(self) -> RunnerSlot:
        """Whose runner takes what has none."""
        return self.gpu if self.gpu and self.residency and self.residency.accepts_work else self.cpu

    @property
    def slots(self) -> list[RunnerSlot]:
        return [self.cpu] if self.gpu is None else [self.cpu, self.gpu]

    def kill_runners(self, why: str, *, of: str | None = None) -> None:
        """Their deaths bring everything else about: RunnerExited, blame, a new runner."""
        for slot in self.slots:
            if of in (None, slot.device) and not slot.is_empty:
                slot.kill(why)

    def step(self, events: Sequence[Event], now: float) -> bool:
        """Take in events, look at the clock, give out work; False after Shutdown."""
        for event in events:
            if isinstance(event, Shutdown):
                # Somebody may wait for the card, which goes back after this.
                has_card = self.gpu is not None and not self.gpu.is_empty
                self.cpu.stop(RUNNER_STOP_SECS + (0.0 if has_card else event.spare_secs))
                return False
            try:
                self._handle(event, now)
            except Exception:
                # What the runners hold and what we believe may differ now: end them, so that all is replayed whole.
                log.exception("%s was not handled", type(event).__name__)
                self.kill_runners("an event of it was not handled")
        self._look_at_clock(now)
        self._give_work(now)
        return True

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case AddGeneration(generation):
                self._take(generation, now)
            case StopGeneration(generation_id, ending, epoch):
                held = self.generations.by_id.get(generation_id)
                if held is not None and epoch in (None, held.epoch):
                    self.generations.stop(held, ending, now)
            case ReleaseAll():
                self._is_releasing = True
                for generation in list(self.generations.by_id.values()):
                    self.generations.remove(generation, Outcome(ClaimState.RELEASED))
            case RunnerStarted() | RunnerStartFailed() | FrameReceived() | RunnerExited():
                slot = next((slot for slot in self.slots if slot.owns(event)), None)
                if slot is not None:
                    self._handle_runner(slot, event, now)
            case PurgeStates(order):
                self._purges.begin(order)
            case HoldGpu() | ReleaseHold() | YieldGpu() if self.residency is not None:
                self.residency.handle_command(event, now)
            case LeaseGranted() | LeaseRefused() | LeaseRecalled() | LeaseLost() if self.residency is not None:
                self.residency.handle_lease_event(event, now)

    def _take(self, generation: ActiveGeneration, now: float) -> None:
        if self._is_releasing:
            generation.end(Outcome(ClaimState.RELEASED))
            return
        self.generations.take(generation, now)
        if self.place.ready is None:
            self.generations.say(generation, StreamState.LOADING)
        if self.residency is not None:
            self.residency.asking.work_arrived(now)

    # ---- runners ----

    def _handle_runner(self, slot: RunnerSlot, event: LaunchEvent, now: float) -> None:
        match event:
            case RunnerStarted():
                late = slot.take(event, now)
                if late is not None:
                    self._did_not_start(slot, late, now)
                    return
                self._purges.runner_started(slot)
                if slot is self.gpu and self.residency is not None:
                    self.residency.gpu_ready(now)
            case RunnerStartFailed():
                self._did_not_start(slot, event, now)
            case FrameReceived(frame=frame):
                slot.heard(now)
                self._handle_frame(slot, frame, now)
            case RunnerExited(reason=reason) if slot.gone(reason, now):
                self._purges.runner_gone(slot)
                self._died(slot, reason, now)

    def _did_not_start(self, slot: RunnerSlot, event: RunnerStartFailed, now: float) -> None:
        slot.failed(event, now)
        self._purges.runner_gone(slot)
        if self.residency is not None and slot is self.gpu:
            self.residency.gpu_exited(event.message, now)
        elif slot.n_failed >= STARTS_BEFORE_FAILING:
            for generation in self.generations.waiting():
                self.generations.remove(
                    generation, Outcome(ClaimState.ENDED, failed("model_unavailable", event.message))
                )

    def _died(self, slot: RunnerSlot, reason: str, now: float) -> None:
        if self.residency is not None and slot is self.gpu:
            is_failure = self.residency.gpu_exited(reason, now)
            told = "the model on the GPU ended; the answer goes on on the CPU"
            self.generations.runner_exited(GPU, reason, state=StreamState.YIELDING, told=told, is_failure=is_failure)
            return
        log.error("the runner with %d sequences ended: %s", len(self.generations.on(CPU)), reason)
        told = "the model process ended and is being started again"
        self.generations.runner_exited(CPU, reason, state=StreamState.LOADING, told=told)
        if self.residency is not None:
            self.residency.cpu_exited(now)

    def _handle_frame(self, slot: RunnerSlot, frame: FromRunner, now: float) -> None:
        match frame:
            case Step() | Deferred() | PrefillProgress() | Ended() | Rejected():
                self.generations.handle(slot.device, frame, now)
                if isinstance(frame, Step) and slot is self.cpu and self.residency is not None:
                    self.residency.asking.pace.note_step(frame)
            case Purged():
                self._purges.answered(slot, frame)
            case Exported() | CacheExported() | Imported() if self.residency is not None:
                self.residency.moved(slot.device, frame, now)
            case _:
                log.warning("the runner said %s in the middle of work", type(frame).__name__)

    # ---- giving work out ----

    def _look_at_clock(self, now: float) -> None:
        for generation in list(self.generations.by_id.values()):
            if generation.deadline is not None and now >= generation.deadline:
                self.generations.stop(generation, TIMED_OUT, now)
            if generation.stop_sent_at is not None and now - generation.stop_sent_at > STOP_PATIENCE_SECS:
                self.kill_runners("it does not answer a cancel", of=generation.device)
        for slot in self.slots:
            slot.watch(now, is_busy=bool(self.generations.on(slot.device)))
        if self.residency is not None and not self._is_releasing:
            self.residency.tick(now)

    def _give_work(self, now: float) -> None:
        if self.cpu.may_start(now) and not self._is_releasing:
            self.cpu.start()
        place = self.place
        if place.ready is None:
            return
        for generation in crash_attribution.admissible(self.generations.by_id.values()):
            if not generation.tokens:
                self.generations.say(generation, StreamState.PREFILL, progress=0.0, reason=self._reason(place))
            self.generations.submit(generation, place.device, now)

    def _reason(self, place: RunnerSlot) -> str | None:
        """Why an answer begins on the CPU although there is a card."""
        return self.residency.asking.reason or None if self.residency is not None and place is self.cpu else None

    def _send(self, device: str, frame: Frame) -> None:
        next(slot for slot in self.slots if slot.device == device).send(frame)
