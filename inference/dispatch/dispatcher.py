"""Dispatcher: submits generations to runners and takes their tokens in, across runner exits and GPU sessions.

One thread owns all state; other threads post events. Knows no rows, no Redis and no Celery.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from inference.dispatch.cache_purge import PurgeOrder
from inference.dispatch.event_loop import EventLoop
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
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, GenerationOutcome
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import CPU
from inference.dispatch.runner_launcher import RunnerFactory
from inference.dispatch.state_folder import CheckpointFiles, StateFolder
from inference.engine.protocol.frames import Ready
from inference.monitoring.engine_metrics import StepMeter
from inference.queue.results import CANCELLED

log = logging.getLogger(__name__)

TICK_SECS = 0.1  # bounds the delay of a deadline
LEAVING_TICK_SECS = 0.01  # another tenant waits for the GPU


class Dispatcher:
    """Public methods may be called from any thread; ``sink`` is called from the dispatcher's.

    ``checkpoint_folder``: for states of prompts in progress; None: a prompt whose runner dies begins again."""

    def __init__(
        self,
        make_runner: RunnerFactory,
        sink: Sink,
        *,
        gpu: GpuParts | None = None,
        checkpoint_folder: StateFolder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._checkpoints = CheckpointFiles(checkpoint_folder)
        self._loop = EventLoop(make_runner, sink, self._events.put, gpu, self._checkpoints)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    # ---- for any thread ----

    @property
    def ready(self) -> Ready | None:
        """The properties of the runner that new work is submitted to; None while there is none."""
        return self._loop.target.ready or self._loop.cpu.ready

    @property
    def runner_pid(self) -> int | None:
        return self._loop.cpu.pid

    @property
    def gpu_pid(self) -> int | None:
        return None if self._loop.gpu is None else self._loop.gpu.pid

    @property
    def device(self) -> str:
        """The device that new work is submitted to."""
        return self._loop.target.device

    @property
    def n_tokens(self) -> int:
        """Tokens emitted since the start."""
        return self._loop.generations.n_tokens

    @property
    def meter(self) -> StepMeter:
        return self._loop.generations.meter

    def describe(self) -> dict[str, Any]:
        """For /health: the GPU state, and why the GPU is not used."""
        return self._loop.residency.describe() if self._loop.residency else {"state": CPU, "card": None, "reason": ""}

    def describe_lease_client(self) -> dict[str, Any]:
        """For /health: the state of the lease client, and its coordinator."""
        return self._loop.residency.describe_lease_client() if self._loop.residency else {}

    def begin(self) -> None:
        """Start the threads and the first runner; returns at once."""
        for slot in self._loop.slots:
            slot.begin()
        if self._loop.residency is not None:
            self._loop.residency.begin()
        self._thread.start()

    def add(self, generation: ActiveGeneration) -> None:
        """Compute a generation; its ``wait`` returns when it has ended or was released."""
        self._events.put(AddGeneration(generation))
        if self._is_over.is_set():
            self._release_late_events()

    def cancel(self, generation_id: UUID) -> None:
        """Stop a generation as cancelled, if it is active here."""
        self._events.put(StopGeneration(generation_id, CANCELLED))

    def drop(self, generation_id: UUID, epoch: int) -> None:
        """Remove a generation whose claim is lost, if it is active here."""
        self._events.put(StopGeneration(generation_id, None, epoch))

    def hold(self, session_id: str, secs: float) -> None:
        """Bring the model to the GPU and hold it there for the session, ``secs`` from now or its last answer."""
        self._events.put(HoldGpu(session_id, secs))

    def release_session(self, session_id: str) -> None:
        """End the hold of the session (of all when empty); running generations stay on the GPU."""
        self._events.put(ReleaseHold(session_id))

    def yield_gpu(self, reason: str) -> None:
        """Leave the GPU now, end all holds, and request it again only for new work."""
        self._events.put(YieldGpu(reason))

    def purge(self, tags: Sequence[str]) -> PurgeOrder:
        """Have all runners remove the KV states of these owners; those that start later begin with it."""
        order = PurgeOrder(tags)
        self._events.put(PurgeStates(order))
        return order

    def release_all(self) -> None:
        self._events.put(ReleaseAll())

    def end(self, timeout_secs: float, *, spare_secs: float = 0.0) -> None:
        """Release the active generations, stop runners and threads. ``spare_secs``: extra time to save states."""
        self._events.put(ReleaseAll())
        self._events.put(Shutdown(spare_secs))
        # The launcher's thread last: the kernel kills the runner with it, and the runner may still be saving.
        self._thread.join(timeout_secs + spare_secs)
        self._loop.cpu.end(timeout_secs)
        if self._loop.residency is not None:
            self._loop.residency.end(timeout_secs)
        self._checkpoints.close()

    # ---- the dispatcher's thread ----

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            events = self._next_events()
            try:
                goes_on = self.step(events)
            except Exception:
                log.exception("dispatcher step failed")
                self._loop.kill_runners("work could not be submitted")
                time.sleep(1.0)  # the same failure may come again at once
        self._is_over.set()
        self._release_late_events()

    def _release_late_events(self) -> None:
        """Release events queued after the thread exits; ``end()`` or a late ``add()`` may run last."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, AddGeneration):
                    event.generation.end(GenerationOutcome(ClaimState.RELEASED))

    def _next_events(self) -> list[Event]:
        events: list[Event] = []
        is_leaving = self._loop.residency is not None and self._loop.residency.is_leaving
        try:
            events.append(self._events.get(timeout=LEAVING_TICK_SECS if is_leaving else TICK_SECS))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def step(self, events: Sequence[Event]) -> bool:
        """Run one step of the event loop; False after Shutdown."""
        return self._loop.step(events, self._clock())
