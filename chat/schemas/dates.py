"""Dates and times in ISO 8601 as clients write them; a time without a zone is in GEMMA_TIME_ZONE."""

from datetime import date, datetime, time

from django.utils import timezone

from chat.schemas import fields

YEARS = range(2, 9999)  # the first and the last one do not exist in every zone


class IsoDate(fields.Text):
    """A date or time, passed on as it was written."""

    default_error_messages = {"date": "must be a date or time in ISO 8601"}

    def to_internal_value(self, data: object) -> str:
        text = super().to_internal_value(data)
        if _parsed(text) is None:
            self.fail("date")
        return text


def first_moment(text: str | None) -> datetime | None:
    """The time, or the beginning of the day; None when nothing was given."""
    return _at(text, time.min)


def last_moment(text: str | None) -> datetime | None:
    """The time, or the end of the day; None when nothing was given."""
    return _at(text, time.max)


def _at(text: str | None, hour: time) -> datetime | None:
    given = _parsed(text) if text else None
    if given is None:
        return None
    # A datetime is a kind of date in Python.
    moment = given if isinstance(given, datetime) else datetime.combine(given, hour)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.get_default_timezone())


def _parsed(text: str) -> date | datetime | None:
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            found = read(text)
        except ValueError:
            continue
        return found if found.year in YEARS else None
    return None
