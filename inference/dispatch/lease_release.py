"""End of a GPU session: the lease is released when the driver reports the memory free, then the session is recorded.

Knows no GPU states and no generations.
"""

import logging
import threading

from inference.dispatch.gpu_parts import GpuParts
from inference.dispatch.gpu_session import GpuSession
from inference.dispatch.runner_slot import RunnerSlot
from inference.errors import GpuUnavailable
from inference.gpu.lease.port import LeaseClient

log = logging.getLogger(__name__)

VRAM_PATIENCE_SECS = 5.0  # the driver frees the memory of a process some time after its exit


class LeaseRelease:
    """Reused across sessions; ``is_done`` is polled once the GPU's process has exited."""

    def __init__(self, parts: GpuParts, lease_client: LeaseClient, gpu: RunnerSlot) -> None:
        self._parts, self._lease_client, self._gpu = parts, lease_client, gpu
        self._exited_at = 0.0

    def process_exited(self, now: float) -> None:
        self._exited_at = now

    def is_done(self, session: GpuSession, now: float) -> bool:
        """Release the lease as soon as the memory is free, at the latest after VRAM_PATIENCE_SECS.

        The lease client retries a release that the coordinator does not take.
        """
        pid = self._gpu.last_pid
        try:
            is_free = pid is None or self._parts.device.vram_used_mb_of([pid]) == 0
        except GpuUnavailable:
            is_free = False
        if not is_free and now - self._exited_at < VRAM_PATIENCE_SECS:
            return False
        if not is_free:
            log.error("lease released, the GPU may still hold our memory device=%s", self._parts.device.name)
        if session.lease is not None:
            result = {"ended_because": session.ended_because, "vram_free": is_free, "n_served": session.n_served}
            self._lease_client.release(session.lease, result)
        return True

    def record(self, session: GpuSession, now: float, *, waits: bool = False) -> None:
        """Store the record of the session, in a thread of its own unless ``waits``: the database may be away."""
        record = session.record(now, is_simulated=self._parts.is_simulated)
        if waits:
            self._parts.record(record)
        else:
            threading.Thread(target=self._parts.record, args=[record], name="hand-over record", daemon=True).start()
