"""Requests to purge the traces that deleted rows leave outside the database, and their progress."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from uuid import UUID

from django.utils import timezone

from inference.models import PurgeRequest
from inference.runtime.redis_client import shared_client
from inference.token_stream import redis_log

READERS_SECS = 2.0  # until readers of a deleted answer have received its End
BATCH_ROWS = 500


def request_purge(*, reason: str, tags: Iterable[str] = (), generation_ids: Iterable[UUID] = ()) -> None:
    """Record a deletion in its transaction; a worker purges it within seconds, or when it is back."""
    PurgeRequest.objects.create(reason=reason, tags=list(tags), generation_ids=list(map(str, generation_ids)))


@dataclass(frozen=True)
class PurgeStatus:
    """Counts of requests; ``oldest_pending`` is None when all are done."""

    n_states: int
    n_logs: int
    n_storage: int
    n_done: int
    oldest_pending: datetime | None

    @property
    def n_pending(self) -> int:
        return self.n_states + self.n_logs + self.n_storage


def purge_status() -> PurgeStatus:
    """Count the deletions by the first missing step."""
    pending = PurgeRequest.objects.filter(storage_at=None)
    stages = [row.stage for row in pending.only("states_at", "logs_at", "storage_at")]
    oldest = pending.order_by("created_at").first()
    return PurgeStatus(
        n_states=stages.count("states"),
        n_logs=stages.count("logs"),
        n_storage=stages.count("storage"),
        n_done=PurgeRequest.objects.exclude(storage_at=None).count(),
        oldest_pending=oldest.created_at if oldest else None,
    )


def remove_logs() -> None:
    """Remove the token logs of requests whose KV states are gone. Raises StoreUnavailable."""
    before = timezone.now() - timedelta(seconds=READERS_SECS)
    rows = PurgeRequest.objects.filter(states_at__isnull=False, logs_at=None, created_at__lt=before)
    pending = dict(rows.order_by("pk").values_list("pk", "generation_ids")[:BATCH_ROWS])
    if not pending:
        return
    ids = [UUID(generation_id) for generation_id in chain.from_iterable(pending.values())]
    redis_log.remove_entries(shared_client(), ids)
    PurgeRequest.objects.filter(pk__in=pending).update(logs_at=timezone.now())
