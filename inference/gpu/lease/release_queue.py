"""Releases on their way to the coordinator, sent again until it takes them.

Only a lease that expires by itself is given up: at a coordinator without expiry the residents would remain paused.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.gpu.transports.port import Coordinator, CoordinatorFault

log = logging.getLogger(__name__)

RELEASE_TRIES = 30
RELEASE_RETRY_SECS = 1.0
LONGEST_RETRY_SECS = 5.0


@dataclass
class UnsentRelease:
    """``due_at`` is on the monotonic clock; ``n_blocking``: tries during which no other session is requested."""

    session_id: str
    result: Mapping[str, Any]
    due_at: float
    n_blocking: int = RELEASE_TRIES
    n_tries: int = 0


class ReleaseQueue:
    """While a release is unsent, the coordinator may count the session as the holder and refuse us the next lease."""

    def __init__(self, coordinator: Coordinator, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._unsent: list[UnsentRelease] = []

    @property
    def is_blocking(self) -> bool:
        """Return whether the next request has to wait for a release."""
        return any(release.n_tries < release.n_blocking for release in self._unsent)

    @property
    def due_at(self) -> float | None:
        return min((release.due_at for release in self._unsent), default=None)

    def add(
        self, session_id: str, result: Mapping[str, Any], due_at: float, *, n_blocking: int = RELEASE_TRIES
    ) -> None:
        self._unsent.append(UnsentRelease(session_id, result, due_at, n_blocking))

    def send_due(self, now: float) -> None:
        for release in [release for release in self._unsent if now >= release.due_at]:
            self._send(release)

    def send_rest(self) -> None:
        """Try each unsent release once more, for the last time."""
        for release in list(self._unsent):
            self._send(release)
            if release in self._unsent:
                log.warning("gpu lease could not be released session=%s", release.session_id)

    def _send(self, release: UnsentRelease) -> None:
        release.n_tries += 1
        try:
            self._coordinator.release(release.session_id, release.result)
        except CoordinatorFault as error:
            expires = self._coordinator.lost_after_secs is not None
            if not (expires and release.n_tries >= RELEASE_TRIES):
                release.due_at = self._clock() + min(
                    LONGEST_RETRY_SECS, RELEASE_RETRY_SECS * max(1, release.n_tries / 5)
                )
                return
            log.warning("gpu lease could not be released session=%s error=%s", release.session_id, error)
        self._unsent.remove(release)
