"""A circuit breaker: after repeated failures a service is left alone for a while, then one call tries it.

Knows nothing of what is called. One per process: each finds out for itself.
"""

import threading
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"  # at first, and after a success: all calls go out
    OPEN = "open"  # after ``max_failures`` in a row, or a failed trial: no call goes out
    HALF_OPEN = "half-open"  # after the pause: one call is out as a trial, the others stay in


class CircuitBreaker:
    """Who wants to call takes a ticket with ``admit`` and brings it back with ``succeeded`` or ``failed``.

    The lock guards the books alone and is never held during a call.
    """

    def __init__(self, *, max_failures: int, pause_secs: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_failures = max_failures
        self.pause_secs = pause_secs
        self.n_failures = 0
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._since = clock()
        self._ticket = 0
        self._lock = threading.Lock()

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def wait_secs(self) -> float:
        """How long until the next trial; 0 when calls may go out."""
        with self._lock:
            return (
                0.0 if self._state is BreakerState.CLOSED else max(0.0, self._since + self.pause_secs - self._clock())
            )

    def admit(self) -> int | None:
        """A ticket, or None: not now."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return self._ticket
            # Also a trial that never came back makes way for the next one after the pause.
            if self._clock() < self._since + self.pause_secs:
                return None
            self._enter(BreakerState.HALF_OPEN)
            return self._ticket

    def succeeded(self, ticket: int) -> None:
        with self._lock:
            if ticket != self._ticket:
                return
            self.n_failures = 0
            if self._state is not BreakerState.CLOSED:
                self._enter(BreakerState.CLOSED)

    def failed(self, ticket: int) -> None:
        with self._lock:
            # A call from before the last change says nothing about the service as it is now.
            if ticket != self._ticket:
                return
            self.n_failures += 1
            if self._state is BreakerState.HALF_OPEN or self.n_failures >= self.max_failures:
                self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state, self._since = state, self._clock()
        self._ticket += 1
