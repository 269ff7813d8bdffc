"""Residents that this process has seen, for the case that Redis loses its data together with their connections."""

import time
import uuid
from collections.abc import Callable

import redis

from inference.gpu.coordinator import ttl
from inference.gpu.protocol import channels


class ResidentMemory:
    """Repeats what Redis has lost; whatever Redis still knows counts alone, such as a resident's own goodbye."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sentinel = f"{ttl.SENTINEL}{uuid.uuid4().hex}"
        self.forget()

    def forget(self) -> None:
        self._n, self._until = 0, 0.0

    def note(self, client: "redis.Redis[bytes]", n_residents: int, secs: float) -> None:
        """Note the number of subscriptions for so long, in Redis and here."""
        pipe = client.pipeline()
        pipe.set(self._sentinel, 1, px=int(2000 * secs))
        pipe.set(channels.RESIDENTS_SEEN, n_residents, px=int(1000 * secs))
        pipe.execute()
        self._n, self._until = n_residents, self._clock() + secs

    def n_lost(self, client: "redis.Redis[bytes]") -> int:
        """Return the noted number if Redis has lost it since then, else 0."""
        if self._n == 0 or self._clock() >= self._until or client.exists(self._sentinel):
            return 0
        return self._n


MEMORY = ResidentMemory()  # of this process, whose watcher and acquisitions share it
