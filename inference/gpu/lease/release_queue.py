"""Releases on their way to the coordinator, sent again until it takes them or the tries are used up."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.gpu.transports.port import Coordinator, CoordinatorFault

log = logging.getLogger(__name__)

RELEASE_TRIES = 30
RELEASE_RETRY_SECS = 1.0


@dataclass
class UnsentRelease:
    """``due_at`` is on the monotonic clock."""

    session_id: str
    result: Mapping[str, Any]
    due_at: float
    n_tries_left: int = RELEASE_TRIES


class ReleaseQueue:
    """While a release is unsent, the coordinator may count the session as the holder and refuse us the next lease."""

    def __init__(self, coordinator: Coordinator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._unsent: list[UnsentRelease] = []

    @property
    def is_empty(self) -> bool:
        return not self._unsent

    @property
    def due_at(self) -> float | None:
        return min((release.due_at for release in self._unsent), default=None)

    def add(self, session_id: str, result: Mapping[str, Any], due_at: float, *, n_tries: int = RELEASE_TRIES) -> None:
        self._unsent.append(UnsentRelease(session_id, result, due_at, n_tries))

    def send_due(self, now: float) -> None:
        for release in [release for release in self._unsent if now >= release.due_at]:
            self._send(release)

    def send_rest(self) -> None:
        """Try each unsent release once more, for the last time."""
        for release in list(self._unsent):
            release.n_tries_left = 1
            self._send(release)

    def _send(self, release: UnsentRelease) -> None:
        release.n_tries_left -= 1
        try:
            self._coordinator.release(release.session_id, release.result)
        except CoordinatorFault as error:
            if release.n_tries_left > 0:
                release.due_at = self._clock() + RELEASE_RETRY_SECS
                return
            log.warning("the GPU lease could not be released: session=%s error=%s", release.session_id, error)
        self._unsent.remove(release)
