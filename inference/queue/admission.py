"""How much may wait, for all and for one caller, and how long a refused caller should stay away.

Each priority has a queue of ``QUEUE_MAX`` rows: ten thousand rows of a batch command do not keep a person out.
"""

import math

from django.conf import settings
from django.db import connection

from inference.enums import Priority
from inference.errors import CallerLimit, QueueFull, StoreUnavailable
from inference.models import Generation
from inference.monitoring.worker_report import mean_run_secs
from inference.runtime import redis_client

# Any number that no one else takes an advisory lock on.
ADMISSION_LOCK = 0x67656D6D61
LONGEST_RETRY_SECS = 120


def require_store() -> None:
    """Raises StoreUnavailable when Redis takes no write: what is accepted now could not be streamed."""
    try:
        redis_client.probe()
    except redis_client.UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"Redis does not answer or is full: {error}") from error


def require_capacity(*, owner: str, priority: Priority) -> None:
    """Raises QueueFull or CallerLimit when one row more would be too many.

    Inside a transaction the answer holds until its end: SQLite's immediate transaction keeps other writers out,
    PostgreSQL takes a lock for it.
    """
    if connection.vendor == "postgresql" and connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADMISSION_LOCK])
    same = Generation.objects.filter(priority=priority)
    of_owner = same.unfinished_of(owner).count()
    if of_owner >= settings.QUEUE_MAX_PER_CALLER:
        raise CallerLimit(of_owner, retry_after_secs(1))
    depth = same.waiting().count()
    if depth >= settings.QUEUE_MAX:
        raise QueueFull(depth, retry_after_secs(depth - settings.QUEUE_MAX + 1))


def retry_after_secs(n_to_leave: int) -> int:
    """When ``n_to_leave`` waiting rows will have been started, by what the last runs took."""
    return max(1, min(math.ceil(expected_wait_secs(n_to_leave)), LONGEST_RETRY_SECS))


def expected_wait_secs(n_to_leave: int) -> float:
    """The same without bounds: with every place taken, one becomes free each mean run / places."""
    return mean_run_secs() * n_to_leave / settings.GEMMA_PARALLEL
