"""The limits of a caller: the LIMIT_ settings, or those of the user's groups. Enforced by ``usage``."""

import time
from dataclasses import dataclass, fields

from django.conf import settings

from chat.access.callers import Caller
from chat.models import GroupLimits

# A change in the admin is in force after this time; until then a request needs no query for its limits.
CACHE_SECS = 5.0
MAX_CACHED = 10_000


@dataclass(frozen=True)
class CallerLimits:
    """Each limit, None for none."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    answers_at_once: int | None = None
    conversations: int | None = None
    memories: int | None = None


NAMES = tuple(field.name for field in fields(CallerLimits))
_cached: dict[str, tuple[float, CallerLimits]] = {}


def limits_of(caller: Caller) -> CallerLimits:
    """Return the limits of a user or of the local identity. Services have none: they bound their users themselves."""
    if caller.is_service:
        return CallerLimits()
    entry = _cached.get(caller.key)
    now = time.monotonic()
    if entry is not None and now < entry[0]:
        return entry[1]
    limits = _read(caller)
    if len(_cached) >= MAX_CACHED:
        _cached.clear()
    _cached[caller.key] = (now + CACHE_SECS, limits)
    return limits


def forget_limits() -> None:
    """Read all limits anew: a group was changed in this process."""
    _cached.clear()


def _read(caller: Caller) -> CallerLimits:
    groups = list(GroupLimits.objects.filter(group__user=caller.user.pk)) if caller.user is not None else []
    limits: dict[str, int | None] = {}
    for name in NAMES:
        values = [value for group in groups if (value := getattr(group, name)) is not None]
        # 0, no limit, is more than any number.
        largest = 0 if 0 in values else max(values, default=getattr(settings, f"LIMIT_{name.upper()}"))
        limits[name] = largest or None
    return CallerLimits(**limits)
