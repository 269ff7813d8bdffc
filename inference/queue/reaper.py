"""The reaper repairs rows that a lost process or a lost message has left behind, one round at a time.

Every worker and every web process has one. Each move is a conditional update, so that two reapers make it once.
"""

import time
from collections.abc import Callable
from uuid import UUID

from inference.queue.cleanup import OpenLogs, delete_ephemeral_rows
from inference.queue.deadlines import Deadlines
from inference.queue.delayed_termination import DelayedTermination
from inference.queue.repeated_notifications import (
    FollowUpNotifications,
    PreparationNotifications,
    QueuedNotifications,
)
from inference.queue.silent_claims import SilentClaims
from inference.queue.unwanted_rows import UnwantedRows

REAP_SECS = 1.0


class Reaper:
    """The whole reaper, for a worker. ``n_claimable`` and ``holds`` are those of its claims."""

    def __init__(
        self,
        n_claimable: Callable[[], int],
        *,
        holds: Callable[[UUID, int], bool] = lambda *_: False,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = RowReaper(holds=holds, deadlines=deadlines, clock=clock)
        self._queued = QueuedNotifications(n_claimable)
        self._preparations = PreparationNotifications(clock)
        self._follow_ups = FollowUpNotifications(clock)
        self._open_logs = OpenLogs(clock)

    def run_once(self) -> None:
        self._rows.run_once()
        self._queued.run_once()
        self._preparations.run_once()
        self._follow_ups.run_once()
        self._open_logs.run_once()
        delete_ephemeral_rows()


class RowReaper:
    """The part that web processes run too, so that deadlines and cancels hold while no worker exists.

    It repeats no wake-up messages: without a worker they would accumulate in the broker.
    """

    def __init__(
        self,
        *,
        holds: Callable[[UUID, int], bool] = lambda *_: False,
        deadlines: Deadlines | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._termination = DelayedTermination(clock)
        self._silent_claims = SilentClaims(self._termination, holds=holds, clock=clock)
        self._unwanted_rows = UnwantedRows(self._termination, deadlines or Deadlines(clock))

    def run_once(self) -> None:
        self._termination.begin_round()
        self._silent_claims.run_once()
        self._unwanted_rows.run_once()
