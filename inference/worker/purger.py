"""Removal of the traces of deleted rows: KV states, token logs, free pages, the broker's append-only file.

    states: runners, tmpfs, disk  ->  logs: Redis  ->  storage: database file and its WAL, append-only file

Each step is recorded when it is done and may be repeated, so that a killed worker leaves nothing behind.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from inference.dispatch.cache_purge import PurgeOrder
from inference.engine.kv_cache.purging import PurgedTags
from inference.models import PurgeRequest
from inference.queue import purges
from inference.worker.state_leftovers import remove_purged_states
from inference.worker.storage_purge import StoragePurge

log = logging.getLogger(__name__)

PURGE_SECS = 1.0
BATCH_ROWS = 500
ANSWER_SECS = 5.0  # for the runners; one that is in a longer step is tried again in the next round


class HasCaches(Protocol):
    """The part of the dispatcher that the purge needs."""

    def purge(self, tags: Sequence[str]) -> PurgeOrder: ...


class Purger:
    """``begin`` before the first runner starts, then ``run_once`` again and again, from one thread."""

    def __init__(self, dispatcher: HasCaches, clock: Callable[[], float] = time.monotonic) -> None:
        self._dispatcher = dispatcher
        self._purged = PurgedTags()
        self._done: set[int] = set()  # requests whose states are gone from the runners of this worker
        self._storage = StoragePurge(clock)

    def begin(self) -> None:
        """Remove states of rows that were deleted while this worker was stopped, before its first runner starts."""
        tags = list(chain.from_iterable(PurgeRequest.objects.values_list("tags", flat=True)))
        if tags:
            self._purged.add(tags)
            self._remove_files()
            self._dispatcher.purge(tags)

    def run_once(self) -> None:
        """Do every step for the requests that wait for it."""
        self._remove_states()
        purges.remove_logs()
        self._storage.run_once()

    def _remove_states(self) -> None:
        # Younger requests also if another worker has done this step: the runners here may have such states, too.
        lately = timezone.now() - timedelta(hours=1)
        rows = PurgeRequest.objects.filter(Q(states_at=None) | Q(created_at__gt=lately)).exclude(pk__in=self._done)
        pending = dict(rows.order_by("pk").values_list("pk", "tags")[:BATCH_ROWS])
        tags = list(chain.from_iterable(pending.values()))
        if not pending:
            return
        self._purged.add(tags)
        if tags:
            if not self._dispatcher.purge(tags).is_done_within(ANSWER_SECS):
                log.info("purges wait for a runner n_purges=%d", len(pending))
                return
            self._remove_files()
        PurgeRequest.objects.filter(pk__in=pending, states_at=None).update(states_at=timezone.now())
        self._done.update(pending)

    def _remove_files(self) -> None:
        n_files = remove_purged_states(
            self._purged, cache_dir=Path(settings.GEMMA_DATA_DIR) / "kv-cache", shm_dir=settings.GEMMA_SHM_DIR
        )
        if n_files:
            log.info("files of purged or torn states removed n_files=%d", n_files)
