"""Deadlines of unfinished rows on this process's own monotonic clock.

A row stores wall-clock time, which may jump. A deadline that was seen once is remembered by the monotonic clock; a jump
moves only deadlines that this process had not seen before, and those by no more than their whole timeout.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from django.utils import timezone

Row = tuple[UUID, datetime | None, float | None]  # id, deadline_at, timeout_secs


class Deadlines:
    """``of`` may be called by any thread, ``overdue`` by one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._remembered: dict[UUID, tuple[datetime, float]] = {}

    def of(self, row: Row) -> float | None:
        """The row's deadline on the monotonic clock; None for a row without one."""
        generation_id, deadline_at, timeout_secs = row
        if deadline_at is None:
            return None
        remembered = self._remembered.get(generation_id)
        # A row gets a new deadline when it is queued after its preparation.
        if remembered is None or remembered[0] != deadline_at:
            remaining_secs = (deadline_at - timezone.now()).total_seconds()
            if timeout_secs is not None:
                remaining_secs = min(remaining_secs, timeout_secs)
            remembered = self._remembered[generation_id] = (deadline_at, self._clock() + remaining_secs)
        return remembered[1]

    def overdue(self, unfinished: Iterable[Row]) -> list[UUID]:
        """The unfinished rows whose deadline has passed; rows that are not in the list are forgotten."""
        now = self._clock()
        rows = list(unfinished)
        deadlines = [(row[0], self.of(row)) for row in rows]
        for generation_id in self._remembered.keys() - {row[0] for row in rows}:
            del self._remembered[generation_id]
        return [generation_id for generation_id, deadline in deadlines if deadline is not None and now >= deadline]
