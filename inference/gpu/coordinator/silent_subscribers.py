"""Subscribers that only watch: they never answered a pause, and are no longer waited for like residents.

Pub/sub names no subscribers, so that they are known by number alone. An announced tenant is never one of them, nor is a
subscriber that has answered once. One that answers late is a resident again at once. Redis keeps what was learned.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import redis

KEY = "gpu:watchers"
_decoder = msgspec.json.Decoder(tuple[int, int, int, float])
MIN_PAUSES = 3


@dataclass(frozen=True)
class Silence:
    """``n_silent`` of ``n_unknown`` subscribers answered none of ``n_pauses``, the first of them at ``since``."""

    n_unknown: int = 0
    n_silent: int = 0
    n_pauses: int = 0
    since: float = 0.0

    def after(self, n_unknown: int, n_silent: int, now: float) -> "Silence":
        """Return what is known after one more pause, in which ``n_silent`` did not answer."""
        if self.n_pauses == 0 or n_unknown < self.n_unknown:  # one has left, and it is not known which
            return Silence(n_unknown, n_silent, 1, now)
        if n_unknown > self.n_unknown:  # those that answered before are residents
            n_most = self.n_silent + n_unknown - self.n_unknown
            return Silence(n_unknown, min(n_silent, n_most), 1, now)
        return Silence(n_unknown, min(n_silent, self.n_silent), self.n_pauses + 1, self.since)

    def n_watchers(self, n_unknown: int, now: float, patience_secs: float) -> int:
        """Return how many of the present subscribers only watch. Newcomers count as residents."""
        if patience_secs <= 0 or self.n_pauses < MIN_PAUSES or now - self.since < patience_secs:
            return 0
        return max(0, self.n_silent - max(0, self.n_unknown - n_unknown))


class SilentSubscribers:
    """Silence on one set of channels. ``patience_secs`` 0: every subscriber is a resident."""

    def __init__(
        self,
        client: "redis.Redis[bytes]",
        channel_set: str,
        patience_secs: float,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = client
        self._set = channel_set
        self._patience_secs = patience_secs
        self._clock = clock

    def count(self, n_unknown: int) -> int:
        return self._read().n_watchers(n_unknown, self._clock(), self._patience_secs)

    def learn(self, n_unknown: int, n_silent: int) -> None:
        silence = self._read().after(n_unknown, n_silent, self._clock())
        fields = [silence.n_unknown, silence.n_silent, silence.n_pauses, silence.since]
        self._redis.hset(KEY, self._set, json.dumps(fields))

    def _read(self) -> Silence:
        data = self._redis.hget(KEY, self._set)
        try:
            fields = _decoder.decode(data) if data is not None else ()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # another program has written there
            fields = ()
        silence = Silence(*fields)
        return silence if 0 <= silence.n_silent <= silence.n_unknown else Silence()
