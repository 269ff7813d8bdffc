"""Ending tenancies: by release, by expiry, by force. Whoever comes first wins; the others touch nothing.

free --> pausing --> held --> resuming --> free
            |          '----------------> free    somebody waits: the residents stay away
            '--------------> resuming            refused, given up, expired
"""

import logging
from collections.abc import Callable

import redis

from inference.gpu.coordinator import broadcast, preemption, ttl, wait_queue
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState

log = logging.getLogger(__name__)

NOBODY = {"session_id": "", "requester": "", "renews": False, "acquired_at": None}
RESUME_AGAIN_SECS = 2.0  # whoever should have told the residents has ended in between


def finish(client: "redis.Redis[bytes]", row: GpuLedger, why: str) -> bool:
    """End the tenancy that ``row`` was seen in; False when it had ended already."""
    if row.state not in (LedgerState.PAUSING, LedgerState.HELD):
        return False
    # Residents that never confirmed are told in any case: some of them may have left. After anybody but us, too: a
    # resident may ask for the card itself, and then it has not left.
    has_left = row.state == LedgerState.HELD and row.requester == channels.US
    stays_empty = has_left and wait_queue.first(client) is not None
    to = LedgerState.FREE if stays_empty else LedgerState.RESUMING
    if not GpuLedger.objects.move(row, to, **(NOBODY if stays_empty else {})):
        return False
    log.info("the GPU lease %d of %s ends: %s", row.epoch, row.requester, why)
    ttl.end(client, row.epoch)
    row.state = to
    if stays_empty:
        broadcast.show(client, row)
    else:
        give_back(client, row)
    return True


def give_back(client: "redis.Redis[bytes]", row: GpuLedger) -> None:
    """Residents may use the card again. Told before the row says so: a process that ends in between tells them twice,
    the other order might not tell them at all. Nobody is granted the card meanwhile."""
    preemption.resume(client, session_id=row.session_id, requester=row.requester)
    if GpuLedger.objects.move(row, LedgerState.FREE, is_emptied=False, **NOBODY):
        row.state = LedgerState.FREE
        broadcast.show(client, row)


class LeaseWatcher:
    """Looks after the card: expired leases, residents that nobody told, signs that were lost. Any number may watch."""

    def __init__(self, config: CoordinatorConfig, *, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._expiry = ttl.LeaseExpiry(config.ttl_secs, clock=clock)
        self._resuming: tuple[int, float] = (-1, 0.0)

    def look(self, client: "redis.Redis[bytes]", row: GpuLedger) -> None:
        """One look at a row that was just read."""
        match row.state:
            case LedgerState.FREE:
                if (
                    row.is_emptied
                    and wait_queue.first(client) is None
                    and GpuLedger.objects.move(row, LedgerState.RESUMING)
                ):
                    row.state = LedgerState.RESUMING
                    give_back(client, row)
            case LedgerState.RESUMING:
                self._look_at_resuming(client, row)
            case _:
                if self._expiry.has_come(client, row.epoch):
                    finish(client, row, "it was not renewed in time")

    def once(self, client: "redis.Redis[bytes]") -> None:
        """What a thread of a long-lived process does every now and then."""
        row = GpuLedger.objects.current()
        self.look(client, row)
        broadcast.restore(client, row)
        if sum(preemption.count(client)):
            preemption.remember(client, self._config)

    def _look_at_resuming(self, client: "redis.Redis[bytes]", row: GpuLedger) -> None:
        epoch, since = self._resuming
        if epoch != row.epoch:
            self._resuming = (row.epoch, self._clock())
        elif self._clock() - since >= RESUME_AGAIN_SECS:
            give_back(client, row)
