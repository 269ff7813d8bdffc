"""The last step of a stay: when the driver says that the card's memory is free, and not before, the lease goes back.

Knows no stages, no generations, and not why the stay ended.
"""

import logging

from inference.dispatch.gpu_session import GpuSession
from inference.dispatch.runner_slot import RunnerSlot
from inference.errors import GpuUnavailable
from inference.gpu.device.port import GpuDevice
from inference.gpu.lease.port import LeaseClient

log = logging.getLogger(__name__)

VRAM_PATIENCE_SECS = 5.0  # of a process that has ended; the driver frees it on its own


class LeaseRelease:
    """Of one stay after the other; asked again and again once the card's process has ended."""

    def __init__(self, card: GpuDevice, lease_client: LeaseClient, gpu: RunnerSlot) -> None:
        self._card, self._lease_client, self._gpu = card, lease_client, gpu
        self._gone_at = 0.0

    def process_gone(self, now: float) -> None:
        self._gone_at = now

    def is_done(self, stay: GpuSession, now: float) -> bool:
        """Whether the lease has gone back, which nobody has to wait for: the lease_client sees to it."""
        is_free = self._is_memory_free()
        if not is_free and now - self._gone_at < VRAM_PATIENCE_SECS:
            return False
        if not is_free:
            log.error("%s is given back although it is not known to be free of us", self._card.name)
        if stay.lease is not None:
            result = {"ended_because": stay.ended_because, "vram_free": is_free, "n_served": stay.n_served}
            self._lease_client.release(stay.lease, result)
        return True

    def _is_memory_free(self) -> bool:
        pid = self._gpu.last_pid
        try:
            return pid is None or self._card.vram_used_mb_of([pid]) == 0
        except GpuUnavailable:
            return False
