"""Releases sessions at an outside coordinator whose process has died. Every long-lived process runs one.

Knows records and the coordinator, no lease client.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference.gpu.records.outside_sessions import OutsideSessionStore
from inference.gpu.transports.port import CoordinatorFault
from inference.gpu.transports.remote import Holding, OutsideCoordinator

log = logging.getLogger(__name__)

# After the longest acquisition, for a coordinator that is slow to answer.
LATE_GRANT_SECS = 15.0


@dataclass
class OrphanedSession:
    """``until``: on the monotonic clock; later the coordinator can no longer grant it."""

    session_id: str
    until: float
    is_released: bool


class SessionReaper:
    def __init__(
        self,
        coordinator: OutsideCoordinator,
        store: OutsideSessionStore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._store = store
        self._clock = clock
        self._orphans: list[OrphanedSession] = []

    def run_once(self) -> None:
        """Raises DatabaseError."""
        until = self._clock() + self._coordinator.acquire_secs + LATE_GRANT_SECS
        for session_id, is_sent in self._store.take_orphans().items():
            self._orphans.append(OrphanedSession(session_id, until, is_sent))
        for orphan in list(self._orphans):
            try:
                is_over = self._release(orphan)
            except CoordinatorFault as error:
                log.debug("orphaned session not released yet session=%s error=%s", orphan.session_id, error)
                continue
            if is_over:
                self._orphans.remove(orphan)
                self._store.remove(orphan.session_id)
        if self._orphans:
            self._store.beat()

    def _release(self, orphan: OrphanedSession) -> bool:
        """Return whether the session is over. One that was being acquired may be granted after its release."""
        holding = self._coordinator.holding(orphan.session_id)
        if holding in (Holding.OURS, Holding.OURS_PAUSING) or (holding is Holding.NOBODY and not orphan.is_released):
            # A release ends any lease at some coordinators: without a holder it is sent only while no process of ours
            # may be granted one.
            def is_due() -> bool:
                return holding is not Holding.NOBODY or not self._store.has_other_sessions()

            if self._coordinator.send_release(orphan.session_id, {}, is_due=is_due):
                log.warning("orphaned session released session=%s", orphan.session_id)
                orphan.is_released = True
        return holding is Holding.OURS or self._clock() >= orphan.until
