"""Enforcement of callers' limits, and their usage so far. Counters are in Redis: without it, nobody is let through who
has such a limit.

The tokens of an answer count when it ends, so that answers under way may exceed a limit by what they are made of.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis
from limits import RateLimitItemPerMinute
from limits.strategies import SlidingWindowCounterRateLimiter

from chat.access.caller_limits import limits_of
from chat.access.callers import Caller
from chat.error_translation import translated
from chat.errors import TooManyRequests, Unavailable
from chat.models import Conversation
from chat.rag.models import Note, Segment
from inference.queue import usage

_NAMESPACE = "requests"
MINUTE_SECS = 60


@dataclass(frozen=True)
class RequestBudget:
    """A caller's limit of requests within a minute, and what is left of it."""

    limit: int
    remaining: int
    resets_in_secs: int


def count_request(caller: Caller) -> RequestBudget | None:
    """Count a request; None for callers without such a limit. Raises RequestsExceeded, Unavailable."""
    limit = limits_of(caller).requests_per_minute
    if limit is None:
        return None
    with _counters():
        is_within = _limiter().hit(RateLimitItemPerMinute(limit), _NAMESPACE, caller.key)
    budget = _window(caller, limit)
    if not is_within:
        raise RequestsExceeded(budget)
    return budget


def n_requests(caller: Caller) -> int:
    """Return the requests that count for the caller's limit now; 0 for callers without one. Raises Unavailable."""
    limit = limits_of(caller).requests_per_minute
    if limit is None:
        return 0
    return limit - _window(caller, limit).remaining


class RequestsExceeded(TooManyRequests):
    """The caller's requests of this minute are used up."""

    code = "rate_limited"

    def __init__(self, budget: RequestBudget) -> None:
        message = f"you may send {budget.limit} requests a minute; wait before the next"
        super().__init__(message, retry_after_secs=budget.resets_in_secs)
        self.budget = budget


def check_tokens(caller: Caller) -> None:
    """Raises TooManyRequests when the caller's tokens of this minute or day are used up; Unavailable without Redis."""
    limits = limits_of(caller)
    if limits.tokens_per_minute is not None:
        with translated():
            minute = usage.minute_of(caller.key)
        if minute.n_tokens >= limits.tokens_per_minute:
            message = f"your {limits.tokens_per_minute} tokens of this minute are used up"
            secs = max(1, math.ceil(minute.resets_in_secs))
            raise TooManyRequests(message, code="token_limit", retry_after_secs=secs)
    if limits.tokens_per_day is not None and usage.tokens_of_today(caller.key) >= limits.tokens_per_day:
        message = f"your {limits.tokens_per_day} tokens of this day (UTC) are used up"
        now = datetime.now(UTC)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        secs = max(1, math.ceil((midnight - now).total_seconds()))
        raise TooManyRequests(message, code="token_limit", retry_after_secs=secs)


def check_conversations(caller: Caller) -> None:
    """Raises TooManyRequests when the caller may store no further conversation."""
    limit = limits_of(caller).conversations
    if limit is not None and Conversation.objects.of(caller.key).count() >= limit:
        message = f"you may store {limit} conversations; delete some, or send store: false"
        raise TooManyRequests(message, code="conversation_limit")


def check_memories(caller: Caller, *, n_more: int) -> None:
    """Raises TooManyRequests when ``n_more`` notes and lines would be too many."""
    limit = limits_of(caller).memories
    if limit is not None and n_memories(caller) + n_more > limit:
        message = f"you may store {limit} notes and lines of transcripts; delete some"
        raise TooManyRequests(message, code="memory_limit")


def n_memories(caller: Caller) -> int:
    """Return the number of the caller's own notes and lines of transcripts."""
    lines = Segment.objects.filter(transcript__owner=caller.key)
    return Note.objects.filter(owner=caller.key).count() + lines.count()


def _window(caller: Caller, limit: int) -> RequestBudget:
    with _counters():
        stats = _limiter().get_window_stats(RateLimitItemPerMinute(limit), _NAMESPACE, caller.key)
    return RequestBudget(limit, stats.remaining, max(1, math.ceil(stats.reset_time - time.time())))


def _limiter() -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(usage.limit_storage())


@contextmanager
def _counters() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(
            "requests cannot be limited now; try again", code="store_unavailable", retry_after_secs=5
        ) from error
