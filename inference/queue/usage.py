"""Tokens that owners use: by day in the database, by minute in Redis. Knows no limits and no users.

Tokens are counted when a generation ends. The minute is a window that begins with its first token.
"""

import logging
import time
from dataclasses import dataclass
from functools import lru_cache

import redis
from django.utils import timezone
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from inference.errors import StoreUnavailable
from inference.models import DailyUsage
from inference.runtime.redis_client import shared_client

log = logging.getLogger(__name__)

# A counter rather than a limit: callers compare, since limits differ by owner and change.
_MINUTE = RateLimitItemPerMinute(2**53)
_NAMESPACE = "tokens"


@dataclass(frozen=True)
class MinuteUsage:
    n_tokens: int
    resets_in_secs: float


@lru_cache(maxsize=1)
def limit_storage() -> RedisStorage:
    """Return the counters of the package ``limits``, on this process's connections."""
    return RedisStorage("redis://", connection_pool=shared_client().connection_pool, key_prefix="gemma:limit")


def record_day(*, owner: str, n_prompt_tokens: int, n_completion_tokens: int) -> None:
    """Add an ended generation to its owner's day, in the caller's transaction."""
    DailyUsage.objects.add(
        owner=owner,
        day=timezone.now().date(),
        n_prompt_tokens=n_prompt_tokens,
        n_completion_tokens=n_completion_tokens,
    )


def record_minute(*, owner: str, n_tokens: int) -> None:
    """Add tokens to the owner's minute; without Redis they are not counted there."""
    if not n_tokens:
        return
    try:
        FixedWindowRateLimiter(limit_storage()).hit(_MINUTE, _NAMESPACE, owner, cost=n_tokens)
    except redis.RedisError as error:
        log.warning("tokens not counted for the minute owner=%s error=%s", owner, error)


def minute_of(owner: str) -> MinuteUsage:
    """Return the tokens of the owner's current minute. Raises StoreUnavailable."""
    try:
        stats = FixedWindowRateLimiter(limit_storage()).get_window_stats(_MINUTE, _NAMESPACE, owner)
    except redis.RedisError as error:
        raise StoreUnavailable("The counters of used tokens do not answer.") from error
    return MinuteUsage(_MINUTE.amount - stats.remaining, max(0.0, stats.reset_time - time.time()))


def tokens_of_today(owner: str) -> int:
    row = DailyUsage.objects.filter(owner=owner, day=timezone.now().date()).first()
    return row.n_tokens if row else 0
