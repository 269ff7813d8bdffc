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
            reason = f"it could not be renewed: {error}"
            patience_secs = self._coordinator.lost_after_secs
            if patience_secs is None or time.monotonic() - held_lease.renewed_at < patience_secs:
                log.debug("lease not renewed lease=%d error=%s", held_lease.lease.epoch, error)
                reason = None
        else:
            held_lease.renewed_at = time.monotonic()
        held_lease.renew_at = time.monotonic() + self._coordinator.renew_secs
        return reason
