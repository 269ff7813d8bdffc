"""End of a lease: by release, expiry or reset. The first conditional update wins; later ones change nothing.

free --> pausing --> held --> resuming --> free
            |          '----------------> free    another request waits: the residents keep waiting
            '--------------> resuming            refused, given up, expired
"""

import logging
from collections.abc import Callable

import redis
from django.db import transaction
from django.utils import timezone

from inference.gpu.coordinator import broadcast, preemption, ttl, wait_queue
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LeaseRecord, LedgerState

log = logging.getLogger(__name__)

NO_HOLDER = {"session_id": "", "requester": "", "renews": False, "acquired_at": None}
RESUME_AGAIN_SECS = 2.0  # the process that had to notify the residents may have exited
# A resident that was not connected has missed its resume: it is repeated for a while, also after Redis was away.
REPEAT_SECS, REPEAT_FOR_SECS = 3.0, 30.0


def finish(client: "redis.Redis[bytes]", row: GpuLedger, reason: str) -> bool:
    """End the lease that ``row`` describes; False when it had ended already."""
    if row.state not in (LedgerState.PAUSING, LedgerState.HELD):
        return False
    # Residents are notified if they never confirmed the pause, since some may have left; and after any holder but us:
    # a resident may request the GPU itself, and then it has not left.
    has_left = row.state == LedgerState.HELD and row.requester == channels.OUR_SERVICE
    stays_empty = has_left and wait_queue.first(client) is not None
    to = LedgerState.FREE if stays_empty else LedgerState.RESUMING
    with transaction.atomic():
        if not GpuLedger.objects.move(row, to, **(NO_HOLDER if stays_empty else {})):
            return False
        record_end(row)
    log.info("lease ended lease=%d requester=%s reason=%s", row.epoch, row.requester, reason)
    ttl.end(client, row.epoch)
    row.state = to
    if stays_empty:
        broadcast.publish(client, row)
    else:
        resume_residents(client, row)
    return True


def record_end(row: GpuLedger) -> None:
    """Write the history of a lease that the caller has just ended, in its transaction; one never granted has none."""
    if row.state == LedgerState.HELD and row.acquired_at is not None:
        LeaseRecord.objects.create(
            lease_epoch=row.epoch, requester=row.requester, acquired_at=row.acquired_at, ended_at=timezone.now()
        )


def resume_residents(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """Notify the residents, then free the row: a process that exits in between notifies them twice, while in the other
    order they might never be notified. The GPU is granted to no request meanwhile."""
    preemption.resume(client, epoch=row.epoch, session_id=row.session_id, requester=row.requester)
    if GpuLedger.objects.move(row, LedgerState.FREE, is_emptied=False, **NO_HOLDER):
        row.state, row.is_emptied = LedgerState.FREE, False
        broadcast.publish(client, row)


class LeaseWatcher:
    """Ends expired leases, notifies residents again, restores lost keys. Any number of processes may run one."""

    def __init__(self, config: CoordinatorConfig, *, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._expiry = ttl.LeaseExpiry(config.ttl_secs, clock=clock)
        self._resuming: tuple[int, float] = (-1, 0.0)
        self._free_epoch, self._free_since, self._repeated_at = -1, 0.0, 0.0

    def check(self, client: "redis.Redis[bytes]", row: GpuLedger) -> None:
        """Act on a row that was just read."""
        match row.state:
            case LedgerState.FREE:
                if (
                    row.is_emptied
                    and wait_queue.first(client) is None
                    and GpuLedger.objects.move(row, LedgerState.RESUMING)
                ):
                    row.state = LedgerState.RESUMING
                    resume_residents(client, row)
            case LedgerState.RESUMING:
                epoch, since = self._resuming
                if epoch != row.epoch:
                    self._resuming = (row.epoch, self._clock())
                elif self._clock() - since >= RESUME_AGAIN_SECS:
                    resume_residents(client, row)
            case _:
                if self._expiry.has_passed(client, row.epoch):
                    finish(client, row, "it was not renewed in time")

    def once(self, client: "redis.Redis[bytes]") -> None:
        """Run one round, as a thread of every long-lived process does."""
        row = GpuLedger.objects.current()
        self.check(client, row)
        try:
            broadcast.refresh(client, row, self._config)
            self._repeat_resume(client, row)
        except redis.RedisError:
            self._free_epoch = -1
            raise
        if sum(preemption.count_residents(client)):
            preemption.note_residents(client, self._config)

    def _repeat_resume(self, client: "redis.Redis[bytes]", row: GpuLedger) -> None:
        now = self._clock()
        if row.state != LedgerState.FREE or row.is_emptied or row.epoch == 0:  # 0: nothing was ever granted
            self._free_epoch = -1
            return
        if row.epoch != self._free_epoch:
            self._free_epoch, self._free_since, self._repeated_at = row.epoch, now, now
        elif now - self._repeated_at >= REPEAT_SECS and now - self._free_since <= REPEAT_FOR_SECS:
            self._repeated_at = now
            preemption.resume(client, epoch=row.epoch, session_id="", requester=channels.OUR_SERVICE)
