"""Moments as the clock of GEMMA_TIME_ZONE shows them. Knows nothing of what happened then."""

from datetime import datetime

from django.utils import timezone


def local(moment: datetime) -> datetime:
    """The same moment, of which a zone must be known."""
    try:
        return timezone.localtime(moment)
    except OverflowError:  # the first or last day of the calendar, which this zone has not
        return moment


def moment_text(moment: datetime, *, with_seconds: bool = False) -> str:
    shown = local(moment)
    return f"{shown:%Y-%m-%d %H:%M:%S}" if with_seconds else f"{shown:%Y-%m-%d %H:%M}"
