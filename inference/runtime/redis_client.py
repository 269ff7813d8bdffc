"""Redis clients, and the names of the keys and channels of generations.

Every client has explicit timeouts and no hidden retries: the caller decides how long it waits.
"""

from functools import lru_cache
from uuid import UUID

import redis
import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError  # type: ignore[attr-defined]
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from compat.redis_asyncio import CancellableRedis

CONNECT_TIMEOUT_SECS = 1.0
REPLY_TIMEOUT_SECS = 1.0
HEALTH_CHECK_SECS = 15

# Redis is unavailable, starting or full, and a retry may succeed. Any other error is a defect of ours.
UNAVAILABLE_ERRORS = (
    RedisConnectionError,  # BusyLoadingError is one of these
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
)

CONTROL_CHANNEL = "gemma:control"
WORKER_KEY = "gemma:worker"
PROBE_KEY = "gemma:probe"
PROBE_TTL_SECS = 10


def log_key(generation_id: UUID) -> str:
    return f"gemma:log:{generation_id}"


def fence_key(generation_id: UUID) -> str:
    return f"gemma:fence:{generation_id}"


def readers_key(generation_id: UUID) -> str:
    return f"gemma:readers:{generation_id}"


def moves_key(generation_id: UUID) -> str:
    return f"gemma:moves:{generation_id}"


def sync_client(*, url: str | None = None, reply_timeout_secs: float = REPLY_TIMEOUT_SECS) -> "redis.Redis[bytes]":
    """A client with a pool of its own. One retry without delay: a pooled connection may have gone stale."""
    return redis.Redis.from_url(
        url or settings.REDIS_URL,
        socket_connect_timeout=CONNECT_TIMEOUT_SECS,
        socket_timeout=reply_timeout_secs,
        health_check_interval=HEALTH_CHECK_SECS,
        retry=Retry(NoBackoff(), 1),
    )


@lru_cache(maxsize=1)
def shared_client() -> "redis.Redis[bytes]":
    """The process-wide client for short commands; threads may share it."""
    return sync_client()


def probe() -> None:
    """Write a key: a Redis that is full still answers a ping. Raises one of UNAVAILABLE_ERRORS."""
    shared_client().set(PROBE_KEY, b"", ex=PROBE_TTL_SECS)


@lru_cache(maxsize=1)
def gpu_client() -> "redis.Redis[bytes]":
    """The process-wide client of the Redis that the GPU's tenants share."""
    return sync_client(url=settings.GPU_REDIS_URL)


def async_client(*, reply_timeout_secs: float = REPLY_TIMEOUT_SECS) -> "redis.asyncio.Redis[bytes]":
    """A client for the running event loop. Commands that block must stay below ``reply_timeout_secs``."""
    return CancellableRedis.connect(
        settings.REDIS_URL,
        reply_timeout_secs=reply_timeout_secs + CONNECT_TIMEOUT_SECS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECS,
        health_check_interval=HEALTH_CHECK_SECS,
        retry=AsyncRetry(NoBackoff(), 1),
    )
