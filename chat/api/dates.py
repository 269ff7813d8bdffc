"""Dates and times in ISO 8601 as clients write them; a time without a zone counts as UTC."""

from datetime import UTC, date, datetime, time

from chat.api import fields


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
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parsed(text: str) -> date | datetime | None:
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None
