"""Dates and times in imported files and in their names; a time without a zone is in GEMMA_TIME_ZONE."""

import re
from datetime import UTC, date, datetime, time

from django.utils import timezone

from chat.rag.numeric_dates import numeric_date
from chat.rag.search.time_expressions import time_in

EARLIEST_UNIX_SECS = 100_000_000  # smaller numbers are offsets into a recording
EARLIEST_UNIX_MS = 100_000_000_000
YEARS = range(1970, 2101)
ALL_YEARS = range(2, 9999)  # the first and the last year do not exist in every zone
# With the same separator twice, or with none. Zoom writes GMT before a time in UTC, others a Z after it.
_DATE_IN_NAME = re.compile(
    r"(?P<gmt>GMT)?(?<!\d)"
    r"(?P<date>\d{4}(?P<mark>[-_.])\d{1,2}(?P=mark)\d{1,2}|\d{1,2}(?P<mark2>[-_.])\d{1,2}(?P=mark2)\d{4}|\d{8})"
    r"(?:[T_ -]+(?:at[_ ])?(?P<hour>\d{2})[-:h._]?(?P<minute>\d{2})(?:[-:m._]?(?P<secs>\d{2}))?"
    r"(?P<utc>Z(?![A-Za-z]))?)?"
    r"(?!\d)"
)
_SLASHES = re.compile(r"\d{4}/")  # the order of 03/05/2024 is not known
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
MAX_DATE_CHARS = 200  # of a name or a field in which the month may be a word


def moment_of(value: object) -> datetime | None:
    """Parse a date; None for anything else.

    ISO 8601, ``2024/03/05``, ``05.03.2024``, ``5 March 2024`` in the languages of questions, unix seconds or
    milliseconds.
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            day = numeric_date(text) if "." in text or _SLASHES.match(text) else None
            day = day or _spelled_day(text, is_whole=True)
            moment = datetime.combine(day, time()) if day else datetime.fromisoformat(text)
            if moment.year not in ALL_YEARS:
                return None
            return moment if moment.tzinfo else moment.replace(tzinfo=timezone.get_default_timezone())
        if isinstance(value, int | float) and not isinstance(value, bool) and value > EARLIEST_UNIX_SECS:
            return datetime.fromtimestamp(value / 1000 if value > EARLIEST_UNIX_MS else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def moment_in_name(name: str) -> datetime | None:
    """Return the first valid date in a file name such as ``2026-03-01 standup``, ``20260301_1405``, ``1.3.2026``."""
    for match in _DATE_IN_NAME.finditer(name):
        digits = match["date"].replace("_", "-")
        day = numeric_date(digits if match["mark"] or match["mark2"] else f"{digits[:4]}-{digits[4:6]}-{digits[6:]}")
        if day is None or day.year not in YEARS:
            continue
        try:
            hour = time(int(match["hour"] or 0), int(match["minute"] or 0), int(match["secs"] or 0))
        except ValueError:
            hour = time()
        return datetime.combine(day, hour, UTC if match["gmt"] or match["utc"] else timezone.get_default_timezone())
    spelled = _spelled_day(name)
    return datetime.combine(spelled, time(), timezone.get_default_timezone()) if spelled else None


def _spelled_day(text: str, *, is_whole: bool = False) -> date | None:
    """Return the day with its month in words; with ``is_whole`` None when anything else is beside it."""
    text = " ".join(re.split(r"[\s_-]+", text))
    if len(text) > MAX_DATE_CHARS or not _YEAR.search(text) or not any(map(str.isalpha, text)):
        return None
    named = time_in(text, date.min)
    # "March 2024" is no day, and without a year it would depend on the present one.
    if named is None or named.span.start is None or named.span.start != named.span.end or not _YEAR.search(named.text):
        return None
    return named.span.start if not is_whole or len(named.text) == len(text) else None
