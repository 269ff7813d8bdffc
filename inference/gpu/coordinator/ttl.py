"""Expiry of a lease: a key per epoch that the holder has to renew. Knows no rows.

A missing key has expired, or Redis was wiped. A watcher tells the two apart by its own monotonic clock.
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
    """Expiry of the last checked lease, as this process has observed it."""

    def __init__(self, ttl_secs: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_secs = ttl_secs
        self._clock = clock
        self._epoch = -1
        self._ends_at = 0.0

    def has_passed(self, client: "redis.Redis[bytes]", epoch: int) -> bool:
        """Return whether the lease is over. For an epoch not observed before, a whole TTL has to pass first."""
        now = self._clock()
        if epoch != self._epoch:
            self._epoch, self._ends_at = epoch, now + self._ttl_secs
        left_ms = client.pttl(f"{KEY}{epoch}")
        if left_ms >= 0:
            # After a wipe the holder has its remaining time to renew the key.
            self._ends_at = now + left_ms / 1000
            return False
        return now >= self._ends_at
