"""Dates and times in ISO 8601 as clients write them; a time without a zone is in GEMMA_TIME_ZONE."""

from datetime import date, datetime, time, tzinfo
from typing import Annotated

from django.utils import timezone
from msgspec import Meta

from chat.schemas.decoding import FieldError
from chat.schemas.scalars import Text

YEARS = range(2, 9999)  # the first and the last one do not exist in every zone

IsoDate = Annotated[Text, Meta(max_length=40, description="A date or a time in ISO 8601.", examples=["2026-01-31"])]


def check_date(field: str, text: str | None) -> None:
    """Raises FieldError for a text that is no date and no time."""
    if text and _parsed(text) is None:  # forms send an empty text for a date that is not filled in
        raise FieldError(field, "must be a date or time in ISO 8601")


def check_span(start_date: str | None, end_date: str | None) -> None:
    """Check both ends of a span, and their order. Raises FieldError."""
    check_date("start_date", start_date)
    check_date("end_date", end_date)
    start, end = first_moment(start_date), last_moment(end_date)
    if start and end and end < start:
        raise FieldError("end_date", "must not be before start_date")


def first_moment(text: str | None, zone: tzinfo | None = None) -> datetime | None:
    """Return the time, or the beginning of the day; None for no text. ``zone`` None: GEMMA_TIME_ZONE."""
    return _at(text, time.min, zone)


def last_moment(text: str | None, zone: tzinfo | None = None) -> datetime | None:
    """Return the time, or the end of the day; None for no text. ``zone`` None: GEMMA_TIME_ZONE."""
    return _at(text, time.max, zone)


def _at(text: str | None, hour: time, zone: tzinfo | None) -> datetime | None:
    parsed = _parsed(text) if text else None
    if parsed is None:
        return None
    # A datetime is a kind of date in Python.
    moment = parsed if isinstance(parsed, datetime) else datetime.combine(parsed, hour)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone or timezone.get_default_timezone())


def _parsed(text: str) -> date | datetime | None:
    for parse in (date.fromisoformat, datetime.fromisoformat):
        try:
            value = parse(text)
        except ValueError:
            continue
        return value if value.year in YEARS else None
    return None
