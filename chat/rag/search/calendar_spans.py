"""Spans of whole days, both ends included, and those of units of the calendar. A week begins on Monday."""

from dataclasses import dataclass
from datetime import date, timedelta

DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


@dataclass(frozen=True)
class DateSpan:
    """Days from ``start`` to ``end``; None is an open end."""

    start: date | None
    end: date | None

    def opened(self, opener: str) -> "DateSpan":
        """Return the span with one end open; ``opener`` is since, before, until, or none of these."""
        match opener:
            case "since":
                return DateSpan(self.start, None)
            case "before" if self.start and self.start > date.min:
                return DateSpan(None, self.start - timedelta(days=1))
            case "until":
                return DateSpan(None, self.end)
        return self


@dataclass(frozen=True)
class NamedTime:
    """The days that a question names, and the words by which it does."""

    span: DateSpan
    text: str


def day_span(day: date) -> DateSpan:
    return DateSpan(day, day)


def week_span(day: date) -> DateSpan:
    """Return the week of ``day``."""
    monday = day - timedelta(days=day.weekday())
    return DateSpan(monday, monday + timedelta(days=6))


def month_span(year: int, month: int) -> DateSpan:
    following = date(year + month // 12, month % 12 + 1, 1)
    return DateSpan(date(year, month, 1), following - timedelta(days=1))


def year_span(year: int) -> DateSpan:
    return DateSpan(date(year, 1, 1), date(year, 12, 31))


def units_ago(today: date, n_units: int, unit: str) -> DateSpan:
    """Return the day, week, month or year that was ``n_units`` ago; 0 is the present one."""
    match unit:
        case "day":
            return day_span(today - timedelta(days=n_units))
        case "week":
            return week_span(today - timedelta(days=7 * n_units))
        case "month":
            number = today.year * 12 + today.month - 1 - n_units
            return month_span(number // 12, number % 12 + 1)
    return year_span(today.year - n_units)


def last_units(today: date, n_units: int, unit: str) -> DateSpan:
    return DateSpan(today - timedelta(days=n_units * DAYS[unit]), today)


def latest_day(today: date, month: int, day: int) -> DateSpan:
    """Return the most recent such day, today included."""
    this_year = date(today.year, month, day)
    return day_span(this_year if this_year <= today else date(today.year - 1, month, day))


def latest_month(today: date, month: int) -> DateSpan:
    return month_span(today.year if month <= today.month else today.year - 1, month)


def latest_weekday(today: date, weekday: int) -> DateSpan:
    """Return the most recent such weekday before today; 0 is Monday."""
    return day_span(today - timedelta(days=(today.weekday() - weekday) % 7 or 7))
