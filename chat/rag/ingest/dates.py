"""Dates and times in imported files and in their names; a time without a zone is in GEMMA_TIME_ZONE."""

import re
from datetime import UTC, datetime

from django.utils import timezone

EARLIEST_UNIX_SECS = 100_000_000  # smaller numbers are offsets into a recording
EARLIEST_UNIX_MS = 100_000_000_000
YEARS = range(1970, 2101)
ALL_YEARS = range(2, 9999)  # the first and the last year do not exist in every zone
_DATE_IN_NAME = re.compile(
    r"(?<!\d)(\d{4})([-_.]?)(\d{2})\2(\d{2})"  # the same separator twice, or none
    r"(?:[T_ -]+(\d{2})[-:h._]?(\d{2})(?:[-:m._]?(\d{2}))?)?(?!\d)"
)


def moment_of(value: object) -> datetime | None:
    """Parse ISO 8601 text, unix seconds or milliseconds; None for anything else."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
            if moment.year not in ALL_YEARS:
                return None
            return moment if moment.tzinfo else moment.replace(tzinfo=timezone.get_default_timezone())
        if isinstance(value, int | float) and not isinstance(value, bool) and value > EARLIEST_UNIX_SECS:
            return datetime.fromtimestamp(value / 1000 if value > EARLIEST_UNIX_MS else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def moment_in_name(name: str) -> datetime | None:
    """Return the first valid date in a file name such as ``2026-03-01 standup`` or ``20260301_1405``."""
    for match in _DATE_IN_NAME.finditer(name):
        year, _, month, day, hour, minute, second = match.groups()
        if int(year) not in YEARS:
            continue
        date = _valid(int(year), int(month), int(day))
        timed = date and hour and _valid(date.year, date.month, date.day, int(hour), int(minute), int(second or 0))
        if date:
            return timed or date
    return None


def _valid(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime | None:
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=timezone.get_default_timezone())
    except ValueError:
        return None
