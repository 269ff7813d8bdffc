"""Single calls of tenants to the coordinator: renew, release, status, reset. Raises RedisError, DatabaseError."""

from dataclasses import dataclass
from datetime import datetime

import redis
from django.utils import timezone

from inference.gpu.coordinator import broadcast, lease, preemption, ttl, wait_queue
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.models.gpu import GpuLedger, LedgerState


@dataclass(frozen=True)
class CoordinatorStatus:
    """Holder, waiters and residents of the GPU."""

    state: str
    owner: str
    session_id: str | None
    requester: str | None
    priority: int | None
    acquired_at: datetime | None
    epoch: int
    waiting: list[wait_queue.Waiter]
    n_residents: int


def renew(client: "redis.Redis[bytes]", config: CoordinatorConfig, *, session_id: str) -> int | None:
    """Extend the lease by its TTL and return its epoch; None: it has ended, or belongs to another session.

    The row decides, so that a lease survives a wipe of Redis, and one that has ended is never revived.
    """
    row = GpuLedger.objects.current()
    if not _is_holder(row, session_id):
        return None
    ttl.extend(client, row.epoch, config.ttl_secs)
    # It may have expired between the two reads above; the key of an ended lease is not read again.
    return row.epoch if _is_holder(GpuLedger.objects.current(), session_id) else None


def release(client: "redis.Redis[bytes]", *, session_id: str) -> float | None:
    """End the lease of this session and return the seconds that it was held; None when it was not."""
    row = GpuLedger.objects.current()
    if not _is_holder(row, session_id):
        return None
    held_secs = (timezone.now() - row.acquired_at).total_seconds() if row.acquired_at else 0.0
    return held_secs if lease.finish(client, row, "released") else None


def reset(client: "redis.Redis[bytes]") -> int:
    """End the present lease of any holder, and return its epoch."""
    row = GpuLedger.objects.current()
    if row.state == LedgerState.RESUMING:
        lease.resume_residents(client, row)
    else:
        lease.finish(client, row, "reset by hand")
    return row.epoch


def status(client: "redis.Redis[bytes]") -> CoordinatorStatus:
    row = GpuLedger.objects.current()
    is_taken = row.state in (LedgerState.PAUSING, LedgerState.HELD)
    return CoordinatorStatus(
        state=broadcast.state_of(row),
        owner=broadcast.owner_of(row),
        session_id=row.session_id if is_taken else None,
        requester=row.requester if is_taken else None,
        priority=row.priority if is_taken else None,
        acquired_at=row.acquired_at,
        epoch=row.epoch,
        waiting=wait_queue.waiting(client),
        n_residents=max(preemption.count_residents(client)),  # most listen on both sets of channels
    )


def has_other_tenants(client: "redis.Redis[bytes]") -> bool:
    """Return whether there are residents, or were a moment ago, or a request waits."""
    return preemption.has_residents(client) or wait_queue.first(client) is not None


def _is_holder(row: GpuLedger, session_id: str) -> bool:
    return row.state in (LedgerState.PAUSING, LedgerState.HELD) and row.session_id == session_id
