"""A circuit breaker: after repeated failures a service is not called for a while, then one call tries it.

Knows nothing of the service. One breaker per service and process.
"""

import threading
import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"  # initially, and after a success: all calls are allowed
    OPEN = "open"  # after ``max_failures`` in a row, or a failed trial: no call is allowed
    HALF_OPEN = "half-open"  # after the pause: one call is the trial, no other is allowed


class CircuitBreaker:
    """A caller takes a ticket with ``admit`` and returns it with ``succeeded`` or ``failed``.

    The lock guards the counters only and is never held during a call.
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
        """Seconds until the breaker allows a call; 0 when it does now."""
        with self._lock:
            return (
                0.0 if self._state is BreakerState.CLOSED else max(0.0, self._since + self.pause_secs - self._clock())
            )

    def admit(self) -> int | None:
        """A ticket, or None when no call is allowed now."""
        with self._lock:
            if self._state is BreakerState.CLOSED:
                return self._ticket
            # A trial that never returned is replaced by the next one after the pause.
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
            # A call from before the last change of state is no evidence of the service's state now.
            if ticket != self._ticket:
                return
            self.n_failures += 1
            if self._state is BreakerState.HALF_OPEN or self.n_failures >= self.max_failures:
                self._enter(BreakerState.OPEN)

    def _enter(self, state: BreakerState) -> None:
        self._state, self._since = state, self._clock()
        self._ticket += 1
