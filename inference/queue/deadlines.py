"""When unfinished rows are out of time, on this process's own monotonic clock.

A row says it in wall-clock time, which may jump. What this process has seen once it remembers by its own clock, so
that a jump moves only what nobody here had seen before, and that by no more than its whole time.
"""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from uuid import UUID

from django.utils import timezone

Row = tuple[UUID, datetime | None, float | None]  # id, deadline_at, timeout_secs


class Deadlines:
    """Any thread may ask; one keeps it up to date."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[UUID, tuple[datetime, float]] = {}

    def of(self, row: Row) -> float | None:
        """The row's deadline on the monotonic clock; None for one without."""
        generation_id, deadline_at, timeout_secs = row
        if deadline_at is None:
            return None
        known = self._known.get(generation_id)
        # A row that is queued after its preparation gets a new one.
        if known is None or known[0] != deadline_at:
            left_secs = (deadline_at - timezone.now()).total_seconds()
            if timeout_secs is not None:
                left_secs = min(left_secs, timeout_secs)
            known = self._known[generation_id] = (deadline_at, self._clock() + left_secs)
        return known[1]

    def overdue(self, unfinished: Iterable[Row]) -> list[UUID]:
        """Those of the unfinished rows whose time is over; whatever is not among them is forgotten."""
        now = self._clock()
        rows = list(unfinished)
        deadlines = [(row[0], self.of(row)) for row in rows]
        for generation_id in self._known.keys() - {row[0] for row in rows}:
            del self._known[generation_id]
        return [generation_id for generation_id, deadline in deadlines if deadline is not None and now >= deadline]
