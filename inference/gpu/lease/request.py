"""The standing request for the GPU: its priority and sessions, the refusals so far, the time of the next attempt."""

import random
from dataclasses import dataclass

JITTER = 0.25
REFUSALS_OF_A_LOSS = 3  # a lost lease makes the next attempt wait as long as so many refusals


@dataclass(frozen=True)
class Backoff:
    """Seconds until the next attempt, growing with the refusals in a row."""

    first_secs: float = 2.0
    longest_secs: float = 30.0
    factor: float = 1.6

    def secs(self, n_refusals: int) -> float:
        base_secs = min(self.longest_secs, self.first_secs * self.factor ** max(0, n_refusals - 1))
        return base_secs * random.uniform(1 - JITTER, 1 + JITTER)


class LeaseRequest:
    """Every ``_at`` and ``now`` is on the monotonic clock. ``reason``: why the GPU is not there yet, for users."""

    def __init__(self, backoff: Backoff) -> None:
        self.priority = 1
        self.session_ids: frozenset[str] = frozenset()
        self.requested_at = 0.0
        self.attempt_at = 0.0
        self.reason = ""
        self._backoff = backoff
        self._n_refusals = 0

    def begin(self, now: float) -> None:
        self.requested_at = now

    def update(self, *, priority: int, session_ids: frozenset[str]) -> None:
        self.priority, self.session_ids = priority, session_ids

    def refuse(self, reason: str, now: float, *, retry_in_secs: float | None = None) -> float:
        """Note a refusal and return the seconds until the next attempt; ``retry_in_secs`` overrides the backoff."""
        if retry_in_secs is None:
            self._n_refusals += 1
            retry_in_secs = self._backoff.secs(self._n_refusals)
        self.attempt_at, self.reason = now + retry_in_secs, reason
        return retry_in_secs

    def granted(self) -> None:
        self.reason, self._n_refusals = "", 0

    def lost(self, now: float) -> None:
        """Rest after a lost lease: two holders that take the GPU from each other would both only load."""
        self._n_refusals = max(self._n_refusals, REFUSALS_OF_A_LOSS)
        self.attempt_at = now + self._backoff.secs(self._n_refusals)

    def withdraw(self, now: float) -> None:
        self.reason, self._n_refusals = "", 0
        # A later request need not wait as long as the backoff of this one had grown.
        self.attempt_at = min(self.attempt_at, now + self._backoff.first_secs)
