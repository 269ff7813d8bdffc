"""Limits of the queue, for the service and for one caller, and the ``Retry-After`` of a refusal.

Each priority has a queue of ``QUEUE_MAX`` rows: a batch of ten thousand rows does not lock interactive callers out.
"""

import math

from django.conf import settings
from django.db import connection

from inference.enums import Priority
from inference.errors import CallerLimit, QueueFull, StoreUnavailable
from inference.models import Generation
from inference.monitoring.worker_report import mean_run_secs
from inference.runtime import redis_client

# An arbitrary number that nothing else takes an advisory lock on.
ADMISSION_LOCK = 0x67656D6D61
LONGEST_RETRY_SECS = 120


def require_store() -> None:
    """Raise StoreUnavailable when Redis takes no write: an accepted request could not be streamed."""
    try:
        redis_client.probe()
    except redis_client.UNAVAILABLE_ERRORS as error:
        raise StoreUnavailable(f"Redis does not answer or is full: {error}") from error


def require_capacity(*, owner: str, priority: Priority, max_of_owner: int | None = None) -> None:
    """Raise QueueFull or CallerLimit when one row more would exceed a limit; ``max_of_owner`` is the owner's own limit
    over all priorities.

    Inside a transaction the result holds until its end: SQLite's immediate transaction keeps other writers out,
    on PostgreSQL an advisory lock does.
    """
    if connection.vendor == "postgresql" and connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADMISSION_LOCK])
    same = Generation.objects.filter(priority=priority)
    of_owner = same.unfinished_of(owner).count()
    if of_owner >= settings.QUEUE_MAX_PER_CALLER:
        raise CallerLimit(of_owner, retry_after_secs(1))
    if max_of_owner is not None:
        of_owner = Generation.objects.unfinished_of(owner).count()
        if of_owner >= max_of_owner:
            raise CallerLimit(of_owner, retry_after_secs(1))
    depth = same.waiting().count()
    if depth >= settings.QUEUE_MAX:
        raise QueueFull(depth, retry_after_secs(depth - settings.QUEUE_MAX + 1))


def retry_after_secs(n_to_leave: int) -> int:
    """Estimated seconds until ``n_to_leave`` waiting rows have been started, within 1 and LONGEST_RETRY_SECS."""
    return max(1, min(math.ceil(expected_wait_secs(n_to_leave)), LONGEST_RETRY_SECS))


def expected_wait_secs(n_to_leave: int) -> float:
    """The same estimate without bounds. With all slots taken, one becomes free every mean run / slots."""
    return mean_run_secs() * n_to_leave / settings.GEMMA_PARALLEL
