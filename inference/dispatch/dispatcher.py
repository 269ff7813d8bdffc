"""Gives generations to runners and takes their tokens in, whatever becomes of the runners and of the card.

One thread owns all state here; everybody else posts events. Knows no rows, no Redis and no Celery.
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
from inference.dispatch.generation_state import ActiveGeneration, ClaimState, Outcome
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import CPU
from inference.dispatch.runner_launcher import RunnerFactory
from inference.engine.protocol.frames import Ready
from inference.monitoring.engine_metrics import StepMeter
from inference.queue.results import CANCELLED

log = logging.getLogger(__name__)

TICK_SECS = 0.1  # how late a deadline may be noticed
BUSY_TICK_SECS = 0.01  # while the card is being left


class Dispatcher:
    """Public methods may be called from any thread; ``sink`` is called from the placement's own."""

    def __init__(
        self,
        make_runner: RunnerFactory,
        sink: Sink,
        *,
        gpu: GpuParts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._loop = EventLoop(make_runner, sink, self._events.put, gpu)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="placement", daemon=True)

    # ---- for any thread ----

    @property
    def ready(self) -> Ready | None:
        """What the runner that new work goes to said of itself; None while there is none."""
        return self._loop.place.ready or self._loop.cpu.ready

    @property
    def runner_pid(self) -> int | None:
        return self._loop.cpu.pid

    @property
    def gpu_pid(self) -> int | None:
        return None if self._loop.gpu is None else self._loop.gpu.pid

    @property
    def device(self) -> str:
        """Where new work goes."""
        return self._loop.place.device

    @property
    def n_tokens(self) -> int:
        """Given out since the start."""
        return self._loop.generations.n_tokens

    @property
    def meter(self) -> StepMeter:
        return self._loop.generations.meter

    def describe(self) -> dict[str, Any]:
        """For /health: where we are with the card, and why not further."""
        return self._loop.residency.describe() if self._loop.residency else {"state": CPU, "card": None, "reason": ""}

    def describe_lease_client(self) -> dict[str, Any]:
        """What the lease's lease_client says of itself and its coordinator."""
        return self._loop.residency.describe_lease_client() if self._loop.residency else {}

    def begin(self) -> None:
        """Start the runner; returns at once."""
        for slot in self._loop.slots:
            slot.begin()
        if self._loop.residency is not None:
            self._loop.residency.begin()
        self._thread.start()

    def add(self, generation: ActiveGeneration) -> None:
        """Compute a generation; its ``wait`` returns when that is over."""
        self._events.put(AddGeneration(generation))
        if self._is_over.is_set():  # nobody takes it any more
            self._release_untaken()

    def cancel(self, generation_id: UUID) -> None:
        """Stop one as cancelled, if it is here."""
        self._events.put(StopGeneration(generation_id, CANCELLED))

    def drop(self, generation_id: UUID, epoch: int) -> None:
        """Stop one whose claim is lost, if it is here."""
        self._events.put(StopGeneration(generation_id, None, epoch))

    def hold(self, session_id: str, secs: float) -> None:
        """Bring the model to the card, and keep it there for the session, ``secs`` from now or its last answer."""
        self._events.put(HoldGpu(session_id, secs))

    def release_session(self, session_id: str) -> None:
        """It (all of them when empty) no longer keeps the card; what runs there goes on."""
        self._events.put(ReleaseHold(session_id))

    def yield_gpu(self, reason: str) -> None:
        """Leave the card now, drop all holds, and do not ask for it before there is new work."""
        self._events.put(YieldGpu(reason))

    def purge(self, tags: Sequence[str]) -> PurgeOrder:
        """Have all runners remove the KV states of these owners; those that start later begin with it."""
        order = PurgeOrder(tags)
        self._events.put(PurgeStates(order))
        return order

    def release_all(self) -> None:
        self._events.put(ReleaseAll())

    def end(self, timeout_secs: float, *, spare_secs: float = 0.0) -> None:
        """Release what is active and stop the runners and threads. ``spare_secs``: extra time to save states."""
        self._events.put(ReleaseAll())
        self._events.put(Shutdown(spare_secs))
        # The launcher's thread last: with it the kernel kills the runner, which is saving what it has computed.
        self._thread.join(timeout_secs + spare_secs)
        self._loop.cpu.end(timeout_secs)
        if self._loop.residency is not None:
            self._loop.residency.end(timeout_secs)

    # ---- the placement's thread ----

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            events = self._next_events()
            try:
                goes_on = self.step(events)
            except Exception:
                log.exception("giving out work failed")
                self._loop.kill_runners("work could not be given out")
                time.sleep(1.0)  # whatever it was, it may come again at once
        self._is_over.set()
        self._release_untaken()

    def _release_untaken(self) -> None:
        """Give back what was added when nobody looked any more; both who ends and who adds late may be the last."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, AddGeneration):
                    event.generation.end(Outcome(ClaimState.RELEASED))

    def _next_events(self) -> list[Event]:
        events: list[Event] = []
        is_leaving = self._loop.residency is not None and self._loop.residency.is_leaving
        try:
            events.append(self._events.get(timeout=BUSY_TICK_SECS if is_leaving else TICK_SECS))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def step(self, events: Sequence[Event]) -> bool:
        """One step of the desk; False after Shutdown."""
        return self._loop.step(events, self._clock())
