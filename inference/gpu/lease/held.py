"""A granted lease and its renewal. Knows no events: the caller reports a recall or a loss."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference.gpu.lease.port import Lease
from inference.gpu.transports.port import Coordinator, CoordinatorFault, Grant

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

    def is_too_late(self, grant: Grant, now: float) -> bool:
        """Return whether the lease may have ended since it was granted, as when this process was suspended."""
        patience_secs = self._coordinator.lost_after_secs
        if patience_secs is None or grant.not_before is None:
            return False
        return now - grant.not_before >= patience_secs

    def begin(self, lease: Lease, confirmed_at: float) -> HeldLease:
        return HeldLease(lease, renew_at=confirmed_at + self._coordinator.renew_secs, renewed_at=confirmed_at)

    def deadline(self, held_lease: HeldLease) -> float:
        """Return when the GPU has to be left, on the monotonic clock, if this process renews and kills nothing more.

        After the time at which it would give up itself, before another session can be granted the GPU."""
        patience_secs = self._coordinator.lost_after_secs
        if patience_secs is None:
            return math.inf
        return held_lease.renewed_at + patience_secs + self._coordinator.renew_secs / 2

    def renew(self, held_lease: HeldLease) -> str | None:
        """Return why the lease is lost; None while it is ours, or may still be."""
        sent_at = time.monotonic()
        try:
            reason = self._coordinator.renew(held_lease.lease.session_id)
        except CoordinatorFault as error:
            reason = f"it could not be renewed: {error}"
            patience_secs = self._coordinator.lost_after_secs
            if patience_secs is None or time.monotonic() - held_lease.renewed_at < patience_secs:
                log.debug("lease not renewed lease=%d error=%s", held_lease.lease.epoch, error)
                reason = None
        else:
            held_lease.renewed_at = sent_at  # the call may have been blocked after its effect
        held_lease.renew_at = time.monotonic() + self._coordinator.renew_secs
        return reason


class RenewalWatchdog:
    """Reports a lease that could not be renewed in time while a renewal is still blocked, as by a locked database."""

    def __init__(self, patience_secs: float, on_silence: Callable[[HeldLease], None]) -> None:
        self._patience_secs = patience_secs
        self._on_silence = on_silence
        self._held: HeldLease | None = None
        self._changed = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="gpu lease watchdog", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def watch(self, held_lease: HeldLease | None) -> None:
        with self._changed:
            self._held = held_lease
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._is_over:
                held_lease = self._held
                if held_lease is None:
                    self._changed.wait()
                    continue
                due_secs = held_lease.renewed_at + self._patience_secs - time.monotonic()
                if due_secs > 0:
                    self._changed.wait(due_secs)
                else:
                    self._held = None
                    self._on_silence(held_lease)
