"""Moments in the time zone of GEMMA_TIME_ZONE."""

from datetime import datetime

from django.utils import timezone


def local(moment: datetime) -> datetime:
    """Convert an aware moment."""
    try:
        return timezone.localtime(moment)
    except OverflowError:  # the first or last day of the calendar, which this zone does not have
        return moment


def moment_text(moment: datetime, *, with_seconds: bool = False) -> str:
    local_moment = local(moment)
    return f"{local_moment:%Y-%m-%d %H:%M:%S}" if with_seconds else f"{local_moment:%Y-%m-%d %H:%M}"
