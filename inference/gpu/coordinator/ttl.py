"""When a lease ends by itself: a key per epoch that its holder has to renew. Knows no rows.

A key that is missing has expired, or Redis was wiped. Who has watched it knows which: time is its own clock's.
"""

import time
from collections.abc import Callable

import redis

KEY = "gpu:tenure:"


def extend(client: "redis.Redis[bytes]", epoch: int, secs: float) -> None:
    client.set(f"{KEY}{epoch}", 1, px=max(1, int(secs * 1000)))


def end(client: "redis.Redis[bytes]", epoch: int) -> None:
    client.delete(f"{KEY}{epoch}")


class LeaseExpiry:
    """One process's view of the lease that it last looked at."""

    def __init__(self, ttl_secs: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_secs = ttl_secs
        self._clock = clock
        self._epoch = -1
        self._ends_at = 0.0

    def has_come(self, client: "redis.Redis[bytes]", epoch: int) -> bool:
        """Whether the lease is over. Of one never seen alive here, that is known a whole TTL later."""
        now = self._clock()
        if epoch != self._epoch:
            self._epoch, self._ends_at = epoch, now + self._ttl_secs
        left_ms = client.pttl(f"{KEY}{epoch}")
        if left_ms >= 0:
            # A holder whose key was wiped has the time that it had left to renew it.
            self._ends_at = now + left_ms / 1000
            return False
        return now >= self._ends_at
