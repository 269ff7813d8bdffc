"""Expiry of a lease: a key per epoch that the holder has to renew. Knows no rows.

A missing key has expired, or Redis was wiped. A watcher tells the two apart by a key of its own, the sentinel, which it
sets at each look: it is missing after a wipe.
"""

import time
import uuid
from collections.abc import Callable

import redis

KEY = "gpu:tenure:"
SENTINEL = "gpu:watcher:"
SENTINEL_TTLS = 6


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
        self._sentinel = f"{SENTINEL}{uuid.uuid4().hex}"

    def has_passed(self, client: "redis.Redis[bytes]", epoch: int) -> bool:
        """Return whether the lease is over. For an epoch not observed before, a whole TTL has to pass first."""
        pipe = client.pipeline()
        pipe.pttl(f"{KEY}{epoch}")
        pipe.set(self._sentinel, 1, px=int(SENTINEL_TTLS * self._ttl_secs * 1000), get=True)
        left_ms, sentinel = pipe.execute()
        now = self._clock()  # after the call, which may take long
        if left_ms >= 0:
            self._ends_at = now + left_ms / 1000
        elif epoch != self._epoch or sentinel is None:
            # The holder may have renewed the key right before it was lost, and may still renew it.
            self._ends_at = now + self._ttl_secs
        self._epoch = epoch
        return bool(left_ms < 0 and now >= self._ends_at)
