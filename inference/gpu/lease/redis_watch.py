"""Time limit for holding the GPU while Redis, over which residents are paused and resumed, is away.

The rule of both sides: a holder leaves after LEAVE_SECS without Redis, a resident of the tenant library uses the GPU
after 30 s without it.
"""

import time
from collections.abc import Callable

import redis

from inference.gpu.protocol import channels

LEAVE_SECS = 15.0
HELD_MS = 10_000  # longer than a renewal takes, with the time limits of its calls
GAP_SECS = 5.0


class RedisWatch:
    """Pings at each call; a gap between two calls says nothing about Redis, and counting begins anew."""

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        *,
        leave_secs: float = LEAVE_SECS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = client
        self._leave_secs = leave_secs
        self._clock = clock
        self._away_since: float | None = None
        self._called_at = float("-inf")

    def is_gone(self, session_id: str = "") -> bool:
        """``session_id`` of the holder, which is published: residents look at it where the state is lost."""
        began = self._clock()
        if began - self._called_at > GAP_SECS:
            self._away_since = None
        self._called_at = began
        try:
            if session_id:
                self._redis.set(channels.HELD, session_id, px=HELD_MS)
            else:
                self._redis.ping()
        except redis.RedisError:
            self._away_since = began if self._away_since is None else self._away_since
            return self._clock() - self._away_since >= self._leave_secs
        self._away_since = None
        return False
