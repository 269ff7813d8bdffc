"""Dates in digits: ``2026-11-28``, ``28.11.2026``, ``11/28/2026``; two digits of a year belong to 1970 to 2069.

Where the day and the month cannot be told apart, GEMMA_LANGUAGE decides.
"""

import re
from collections.abc import Iterable
from datetime import date

from django.conf import settings

YEAR_FIRST = r"\d{4}([./-])\d{1,2}\1\d{1,2}"
YEAR_LAST = r"\d{1,2}([./-])\d{1,2}\2(?:\d{4}|\d{2})"
NUMERIC_DATE = re.compile(rf"(?<![\d./-])(?:{YEAR_FIRST}|{YEAR_LAST})(?![\d/-]|\.\d)")
# The month precedes the day in American English and where the year comes first.
MONTH_FIRST = {"en", "en-US", "en-PH", "fil", "zh", "ja", "ko", "hu", "lt", "mn", "sv"}
FIRST_YEAR_OF_TWO_DIGITS = 70
MONTHS_OF_A_YEAR = 12


def is_day_first(texts: Iterable[str] = ()) -> bool:
    """Return whether the day comes first, by the first of ``texts`` that decides it, else by GEMMA_LANGUAGE."""
    for text in texts:
        first, second, _ = map(int, re.split(r"[./-]", text))
        if first > MONTHS_OF_A_YEAR >= second:
            return True
        if second > MONTHS_OF_A_YEAR >= first:
            return False
    language: str = settings.GEMMA_LANGUAGE
    # English alone differs by country.
    return (language if language.startswith("en-") else language.partition("-")[0]) not in MONTH_FIRST


def numeric_date(text: str, *, day_first: bool | None = None) -> date | None:
    """Return the date that ``text`` is, None when it is none; ``day_first`` None: by GEMMA_LANGUAGE."""
    match = NUMERIC_DATE.fullmatch(text)
    if match is None:
        return None
    first, second, third = map(int, re.split(r"[./-]", text))
    if match[1]:
        return _valid(first, second, third)
    year = third if third > 99 else third + (1900 if third >= FIRST_YEAR_OF_TWO_DIGITS else 2000)
    # With points the day is first in every language that writes them.
    if "." in text or (is_day_first() if day_first is None else day_first):
        return _valid(year, second, first) or _valid(year, first, second)
    return _valid(year, first, second) or _valid(year, second, first)


def _valid(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
