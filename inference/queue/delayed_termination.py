"""Terminations that wait for Redis: retried in each round of the reaper, without the token log in the end."""

import logging
import time
from collections.abc import Callable
from uuid import UUID

from inference.errors import StoreUnavailable
from inference.queue.termination import LOG_PATIENCE_SECS

log = logging.getLogger(__name__)


class DelayedTermination:
    """Counts only rounds in a row: a row that no round wants to terminate any more is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting_since: dict[UUID, float] = {}
        self._previous_round: dict[UUID, float] = {}

    def begin_round(self) -> None:
        self._previous_round, self._waiting_since = self._waiting_since, {}

    def attempt(self, generation_id: UUID, terminate: Callable[..., bool]) -> bool:
        """Call ``terminate(generation_id, without_log=...)``; False when it did nothing or has to wait for Redis."""
        now = self._clock()
        since = self._previous_round.get(generation_id, now)
        try:
            return terminate(generation_id, without_log=now - since >= LOG_PATIENCE_SECS)
        except StoreUnavailable as error:
            self._waiting_since[generation_id] = since
            log.info("termination waits for the token log generation=%s error=%s", generation_id, error)
            return False
