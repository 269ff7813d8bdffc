"""The thread that every long-lived process runs for the built-in coordinator: it ends expired leases."""

import time

from django.conf import settings

from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.runtime.redis_client import gpu_client
from inference.runtime.repeating_thread import RepeatingThread

MIN_WATCH_SECS, MAX_WATCH_SECS = 0.05, 1.0
WATCHES_PER_TTL = 10


def watch_loop() -> RepeatingThread | None:
    """Make the thread, not begun yet; None with an outside coordinator."""
    if settings.GPU_COORDINATOR_URL is not None:
        return None
    config = CoordinatorConfig.from_settings()
    watch = LeaseWatcher(config, clock=time.monotonic)
    interval_secs = min(MAX_WATCH_SECS, max(MIN_WATCH_SECS, config.ttl_secs / WATCHES_PER_TTL))
    return RepeatingThread("gpu watch", interval_secs, lambda: watch.once(gpu_client()))
