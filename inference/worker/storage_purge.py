"""The last step of a purge: rewriting the files that still hold deleted rows. Knows no KV states and no token logs."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from inference.models import PurgeRequest
from inference.runtime.compaction import compact_database, compact_redis
from inference.runtime.redis_client import shared_client

log = logging.getLogger(__name__)

BATCH_ROWS = 500
KEEP_DAYS = 30  # a worker that was stopped for longer may have states of rows deleted meanwhile
# Rewriting files takes at most one part in so many of the time.
STORAGE_REST = 20
SHORTEST_REST_SECS = 3.0


class StoragePurge:
    """Rewrites the files for all waiting requests together, with pauses in proportion to the duration."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at = 0.0

    def run_once(self) -> None:
        """Rewrite the files if a request waits for it and the pause is over."""
        rows = PurgeRequest.objects.filter(states_at__isnull=False, logs_at__isnull=False, storage_at=None)
        pending = list(rows.values_list("pk", flat=True)[:BATCH_ROWS])
        began = self._clock()
        if not pending or began < self._due_at:
            return
        try:
            is_done = compact_redis(shared_client()) and compact_database()
        finally:
            took_secs = self._clock() - began
            self._due_at = self._clock() + max(SHORTEST_REST_SECS, STORAGE_REST * took_secs)
        if is_done:
            PurgeRequest.objects.filter(pk__in=pending).update(storage_at=timezone.now())
            log.info("purges done, files rewritten n_purges=%d took_secs=%.1f", len(pending), took_secs)
            PurgeRequest.objects.filter(storage_at__lt=timezone.now() - timedelta(days=KEEP_DAYS)).delete()
