"""Progress of the loop, as a thread beside it sees it, and steps that are ended early because nothing waits for them.

Knows sequences by their ids only. The loop brackets its work; other threads call ``frame_arrived`` and
``is_progressing``.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from inference.engine.backends.step_watch import StepWatch
from inference.engine.protocol.frames import Cancel, Stop, ToRunner

# Work outside a step: the longest is a state that is read from a slow disk.
OTHER_WORK_SECS = 60.0
# A step of which nothing is seen may take this many times the expected time, and at least so long.
MARGIN = 10.0
SHORTEST_ALLOWANCE_SECS = 10.0
UNMEASURED_STEP_SECS = 180.0  # longer than a step of any model


class StepGuard:
    """``watch`` is that of the backend which computes the steps."""

    def __init__(self, watch: StepWatch, clock: Callable[[], float] = time.monotonic) -> None:
        self._watch = watch
        self._clock = clock
        self._lock = threading.Lock()
        self._cancelled: set[str] = set()  # sequences whose Cancel has arrived and is not handled yet
        self._is_stopping = False
        self._batch: frozenset[str] = frozenset()  # sequences of the step that is being computed
        self._allowed_until = 0.0
        self._n_done_before = 0

    # ---- the loop ----

    def begin_work(self) -> None:
        """Allow the time of any work but a step: frames, states, samples."""
        self._allowed_until = self._clock() + OTHER_WORK_SECS

    def begin_wait(self) -> None:
        """Nothing is computed until the next frame."""
        self._allowed_until = 0.0

    @contextmanager
    def step(self, sequence_ids: Iterable[str], expected_ms: float | None) -> Iterator[None]:
        """Bracket one step; ``expected_ms`` None: a step like it was never measured."""
        if self._watch.counts:
            self._allowed_until = 0.0
        else:
            self._allowed_until = self._clock() + allowance_secs(expected_ms)
        with self._lock:
            self._batch = frozenset(sequence_ids)
            self._abort_if_unwanted()
        try:
            yield
        finally:
            with self._lock:
                self._batch = frozenset()
                self._watch.reset()
            self.begin_work()

    def cancel_handled(self, sequence_id: str) -> None:
        with self._lock:
            self._cancelled.discard(sequence_id)

    # ---- other threads ----

    def frame_arrived(self, frame: ToRunner) -> None:
        """End the present step early if the frame leaves no sequence in it that anything waits for."""
        with self._lock:
            match frame:
                case Cancel(sequence_id):
                    self._cancelled.add(sequence_id)
                case Stop():
                    self._is_stopping = True
            self._abort_if_unwanted()

    def is_progressing(self) -> bool:
        """Return whether anything was computed since the last call, or time for the present work is left."""
        n_before, self._n_done_before = self._n_done_before, self._watch.n_done
        return self._n_done_before != n_before or self._clock() < self._allowed_until

    def _abort_if_unwanted(self) -> None:
        if self._batch and (self._is_stopping or self._batch <= self._cancelled):
            self._watch.abort()


def allowance_secs(expected_ms: float | None) -> float:
    """Return how long a step may take of which nothing is seen until its end."""
    if expected_ms is None:
        return UNMEASURED_STEP_SECS
    return max(SHORTEST_ALLOWANCE_SECS, MARGIN * expected_ms / 1000)
