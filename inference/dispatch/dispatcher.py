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
from inference.dispatch.event_loop import Desk
from inference.dispatch.events import (
    Add,
    Event,
    Hold,
    PurgeStates,
    Quit,
    ReleaseAll,
    ReleaseSession,
    Sink,
    StopOne,
    YieldGpu,
)
from inference.dispatch.generation_state import Fate, Live, Outcome
from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import CPU
from inference.dispatch.runner_launcher import MakeRunner
from inference.engine.protocol.frames import Ready
from inference.monitoring.engine_metrics import StepMeter
from inference.queue.results import CANCELLED

log = logging.getLogger(__name__)

TICK_SECS = 0.1  # how late a deadline may be noticed
BUSY_TICK_SECS = 0.01  # while the card is being left


class Placement:
    """Public methods may be called from any thread; ``sink`` is called from the placement's own."""

    def __init__(
        self,
        make_runner: MakeRunner,
        sink: Sink,
        *,
        gpu: GpuParts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._desk = Desk(make_runner, sink, self._events.put, gpu)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="placement", daemon=True)

    # ---- for any thread ----

    @property
    def ready(self) -> Ready | None:
        """What the runner that new work goes to said of itself; None while there is none."""
        return self._desk.place.ready or self._desk.cpu.ready

    @property
    def runner_pid(self) -> int | None:
        return self._desk.cpu.pid

    @property
    def gpu_pid(self) -> int | None:
        return None if self._desk.gpu is None else self._desk.gpu.pid

    @property
    def device(self) -> str:
        """Where new work goes."""
        return self._desk.place.device

    @property
    def n_tokens(self) -> int:
        """Given out since the start."""
        return self._desk.roster.n_tokens

    @property
    def meter(self) -> StepMeter:
        return self._desk.roster.meter

    def describe(self) -> dict[str, Any]:
        """For /health: where we are with the card, and why not further."""
        return self._desk.tenancy.describe() if self._desk.tenancy else {"state": CPU, "card": None, "reason": ""}

    def describe_keeper(self) -> dict[str, Any]:
        """What the lease's keeper says of itself and its coordinator."""
        return self._desk.tenancy.describe_keeper() if self._desk.tenancy else {}

    def begin(self) -> None:
        """Start the runner; returns at once."""
        for slot in self._desk.slots:
            slot.begin()
        if self._desk.tenancy is not None:
            self._desk.tenancy.begin()
        self._thread.start()

    def add(self, live: Live) -> None:
        """Compute a generation; its ``wait`` returns when that is over."""
        self._events.put(Add(live))
        if self._is_over.is_set():  # nobody takes it any more
            self._release_untaken()

    def cancel(self, generation_id: UUID) -> None:
        """Stop one as cancelled, if it is here."""
        self._events.put(StopOne(generation_id, CANCELLED))

    def drop(self, generation_id: UUID, epoch: int) -> None:
        """Stop one whose claim is lost, if it is here."""
        self._events.put(StopOne(generation_id, None, epoch))

    def hold(self, session_id: str, secs: float) -> None:
        """Bring the model to the card, and keep it there for the session, ``secs`` from now or its last answer."""
        self._events.put(Hold(session_id, secs))

    def release_session(self, session_id: str) -> None:
        """It (all of them when empty) no longer keeps the card; what runs there goes on."""
        self._events.put(ReleaseSession(session_id))

    def yield_card(self, reason: str) -> None:
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
        """Stop the runners and the threads; what still lives is released. ``spare_secs``: more time to save states."""
        self._events.put(ReleaseAll())
        self._events.put(Quit(spare_secs))
        # The launcher's thread last: with it the kernel kills the runner, which is saving what it has computed.
        self._thread.join(timeout_secs + spare_secs)
        self._desk.cpu.end(timeout_secs)
        if self._desk.tenancy is not None:
            self._desk.tenancy.end(timeout_secs)

    # ---- the placement's thread ----

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            events = self._next_events()
            try:
                goes_on = self.step(events)
            except Exception:
                log.exception("giving out work failed")
                self._desk.kill_runners("work could not be given out")
                time.sleep(1.0)  # whatever it was, it may come again at once
        self._is_over.set()
        self._release_untaken()

    def _release_untaken(self) -> None:
        """Give back what was added when nobody looked any more; both who ends and who adds late may be the last."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, Add):
                    event.live.end(Outcome(Fate.RELEASED))

    def _next_events(self) -> list[Event]:
        events: list[Event] = []
        is_leaving = self._desk.tenancy is not None and self._desk.tenancy.is_leaving
        try:
            events.append(self._events.get(timeout=BUSY_TICK_SECS if is_leaving else TICK_SECS))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def step(self, events: Sequence[Event]) -> bool:
        """One step of the desk; False after Quit."""
        return self._desk.step(events, self._clock())
