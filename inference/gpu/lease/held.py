"""A granted lease and its renewal. Knows no events: the caller reports a recall or a loss."""

import logging
import time
from dataclasses import dataclass

from inference.gpu.lease.port import Lease
from inference.gpu.transports.port import Coordinator, CoordinatorFault

log = logging.getLogger(__name__)


@dataclass
class HeldLease:
    """``renewed_at``: when the coordinator last confirmed the lease. Both times are monotonic."""

    lease: Lease
    renew_at: float
    renewed_at: float
    is_recalled: bool = False


class LeaseRenewal:
    """Renews one lease at the coordinator's interval."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def begin(self, lease: Lease, now: float) -> HeldLease:
        return HeldLease(lease, renew_at=now + self._coordinator.renew_secs, renewed_at=now)

    def renew(self, held_lease: HeldLease) -> str | None:
        """Return why the lease is lost; None while it is ours, or may still be."""
        try:
            reason = self._coordinator.renew(held_lease.lease.session_id)
        except CoordinatorFault as error:
            reason = self._after_fault(held_lease, error, time.monotonic())
        else:
            held_lease.renewed_at = time.monotonic()
        held_lease.renew_at = time.monotonic() + self._coordinator.renew_secs
        return reason

    def _after_fault(self, held_lease: HeldLease, error: CoordinatorFault, now: float) -> str | None:
        patience_secs = self._coordinator.lost_after_secs
        if patience_secs is None or now - held_lease.renewed_at < patience_secs:
            log.debug("the lease was not renewed: lease=%d error=%s", held_lease.lease.epoch, error)
            return None
        return f"it could not be renewed: {error}"
