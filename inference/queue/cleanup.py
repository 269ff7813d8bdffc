"""Data that has outlived its readers: token logs without an End, and ephemeral rows."""

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.utils import timezone

from inference.models import Generation
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log

log = logging.getLogger(__name__)

LOGS_INTERVAL_SECS = 15.0
LOG_END_SECS = 10.0  # a log gets its End within moments of its row, or never
FIRST_LOOK_BACK_SECS = 600.0
BATCH_ROWS = 200


class OpenLogs:
    """Token logs of ended rows without an End: their worker died in between, and readers have the row."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = clock() - FIRST_LOOK_BACK_SECS

    def run_once(self) -> None:
        """Delete the logs of rows that ended since the last round."""
        now = self._clock()
        since_secs = now - self._looked_at
        if since_secs < LOGS_INTERVAL_SECS:
            return
        ended = Generation.objects.ended_between(
            timezone.now(), from_secs=LOG_END_SECS, to_secs=2 * LOG_END_SECS + since_secs
        )
        ids = list(ended.values_list("pk", flat=True))
        open_logs = redis_log.without_end(shared_client(), ids) if ids else []
        if open_logs:
            log.info("token logs without an end deleted n_logs=%d", len(open_logs))
            redis_log.delete(shared_client(), open_logs)
        # Only after success: rows that ended while Redis was unavailable belong to the next round.
        self._looked_at = now


def delete_ephemeral_rows() -> None:
    """Delete ephemeral rows that no reader needs any more, with their logs."""
    rows = Generation.objects.deletable(timezone.now(), after_secs=settings.TOKEN_LOG_TTL_SECS)
    ids = list(rows.values_list("pk", flat=True)[:BATCH_ROWS])
    if ids:
        redis_log.delete(shared_client(), ids)
        Generation.objects.filter(pk__in=ids).delete()
