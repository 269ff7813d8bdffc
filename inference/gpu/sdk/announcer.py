"""Announces a resident from a thread of its own: while its callback runs, its memory is on the GPU. Needs no Django."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import redis

from inference.gpu.protocol import channels, presence
from inference.gpu.protocol.presence import Presence

if TYPE_CHECKING:
    Wire = redis.Redis[bytes]
else:  # not subscriptable at run time
    Wire = redis.Redis

log = logging.getLogger(__name__)

SETTLE_INTERVALS = 1.5
LONGEST_WAIT_SECS = 70.0  # no coordinator waits longer for the memory
STATE_SECS = 2.0
OTHERS_SECS = 0.05  # between two looks whether the other residents have left
N_CHANNEL_SETS = 2  # on which a resident counts


class ResidentAnnouncer:
    """Raises RedisError from ``await_others`` alone."""

    def __init__(self, client: Wire, resident: Presence, every_secs: float) -> None:
        self._redis = client
        self._own = resident
        self._every_secs = every_secs
        self._known_since = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"gpu presence {resident.service}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def await_others(self, session_id: str, has_ended: Callable[[], bool]) -> bool:
        """Wait until every announced resident has left the GPU for the session; False when the coordinator has given
        up meanwhile, or long should have: then a reply would count for the next session. ``has_ended``: whether the
        pause is over by a later message."""
        self._announce()
        began, was_lent = time.monotonic(), False
        while (waited_secs := time.monotonic() - began) < LONGEST_WAIT_SECS:
            presence.leave(self._redis, self._own, session_id)  # repeated, since Redis may lose it
            is_free = self._redis.get(channels.STATE) == channels.STATE_FREE.encode()
            was_lent = was_lent or not is_free
            # Some coordinators may publish the state after the pause. Those that had left may be back by now.
            if has_ended() or (is_free and (was_lent or waited_secs >= STATE_SECS)):
                return False
            # After a loss of Redis' data the others have to be announced again first.
            is_settled = time.monotonic() - self._known_since >= SETTLE_INTERVALS * self._every_secs
            if is_settled and presence.have_left(self._redis, self._own, session_id):
                return True
            if self._over.wait(OTHERS_SECS):
                return False
        log.warning("other residents have not left the gpu service=%s session=%s", self._own.service, session_id)
        return False

    def end(self) -> None:
        """Stop announcing."""
        self._over.set()

    def withdraw(self) -> None:
        """Leave the number of residents, for which a coordinator would wait in case one is only reconnecting."""
        self._thread.join()
        try:
            presence.withdraw(self._redis, self._own)
            if self._redis.decrby(channels.RESIDENTS_SEEN, N_CHANNEL_SETS) <= 0:
                self._redis.delete(channels.RESIDENTS_SEEN)
        except redis.RedisError as error:
            log.debug("redis is away service=%s error=%s", self._own.service, error)

    def _run(self) -> None:
        while True:
            try:
                self._announce()
            except redis.RedisError as error:
                log.debug("resident not announced service=%s error=%s", self._own.service, error)
            if self._over.wait(self._every_secs):
                return

    def _announce(self) -> None:
        if not presence.announce(self._redis, self._own):
            self._known_since = time.monotonic()
