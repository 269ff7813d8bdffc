"""The sums of a period, divided into equal steps, from rows of hours or days alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from django.utils import timezone

from chat.local_time import local
from chat.models import Rollup, Span
from chat.services.rollups.collecting import KINDS
from chat.services.rollups.figures import Figures, add


class Division(NamedTuple):
    """``n_units``: hours or days of one step."""

    title: str
    span: Span
    n_units: int
    n_steps: int


class Period(Enum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"

    @property
    def division(self) -> Division:
        return DIVISIONS[self]


DIVISIONS = {
    Period.DAY: Division("24 hours", Span.HOUR, 1, 24),
    Period.WEEK: Division("7 days", Span.HOUR, 3, 56),
    Period.MONTH: Division("30 days", Span.DAY, 1, 30),
    Period.YEAR: Division("1 year", Span.DAY, 7, 53),
}


@dataclass
class PeriodStep:
    """Figures by kind of the time from ``starts_at`` to the next step."""

    starts_at: datetime
    figures: dict[str, Figures] = field(default_factory=lambda: {kind: {} for kind in KINDS})


@dataclass(frozen=True)
class PeriodSums:
    """The steps of a period, the last of which has not ended, and the sums of all of them."""

    period: Period
    steps: list[PeriodStep]
    totals: dict[str, Figures]

    @property
    def step_ms(self) -> float:
        span, n_units = self.period.division.span, self.period.division.n_units
        return (timedelta(hours=n_units) if span == Span.HOUR else timedelta(days=n_units)) / timedelta(milliseconds=1)


def sums_of(period: Period, now: datetime | None = None) -> PeriodSums:
    """Read the sums of the period that ends now, with one query."""
    steps = _steps(period, now or timezone.now())
    totals: dict[str, Figures] = {kind: {} for kind in KINDS}
    rows = Rollup.objects.filter(span=period.division.span, starts_at__gte=steps[0].starts_at).order_by()
    for row in rows:
        step = steps[_index_of(row.starts_at, steps[0].starts_at, period.division)]
        if row.kind in totals:
            add(step.figures[row.kind], row.figures)
    for step in steps:
        add(totals, step.figures)
    return PeriodSums(period, steps, totals)


def _steps(period: Period, now: datetime) -> list[PeriodStep]:
    _, span, n_units, n_steps = period.division
    if span == Span.HOUR:
        last = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        first = last - timedelta(hours=n_steps * n_units - 1)
        return _made(first + timedelta(hours=n_units * index) for index in range(n_steps))
    today = local(now).replace(hour=0, minute=0, second=0, microsecond=0)
    first = today - timedelta(days=n_steps * n_units - 1)
    # Days differ in length: each is made from its date.
    return _made(first + timedelta(days=n_units * index) for index in range(n_steps))


def _made(moments: Iterable[datetime]) -> list[PeriodStep]:
    return [PeriodStep(moment) for moment in moments]


def _index_of(moment: datetime, first: datetime, division: Division) -> int:
    """Return the step of a row; one that lies after the last step, as when the clock was set back, is of the last."""
    if division.span == Span.HOUR:
        n_units = (moment - first) // timedelta(hours=1)
    else:
        n_units = (local(moment).date() - first.date()).days
    return min(max(0, n_units // division.n_units), division.n_steps - 1)
