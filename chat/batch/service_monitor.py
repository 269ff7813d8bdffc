"""Watches during a batch whether a worker serves it."""

import time

from chat.batch.errors import ServiceGone
from inference.monitoring import worker_report

HEALTH_SECS = 2.0


class ServiceMonitor:
    """Looks for worker reports every HEALTH_SECS; tolerates ``patience_secs`` without one."""

    def __init__(self, patience_secs: float) -> None:
        self.patience_secs = patience_secs
        self.reported_at = time.monotonic()
        self._next_check = 0.0

    def check(self) -> str:
        """Return a warning while no worker reports, else "". Raises ServiceGone after ``patience_secs``."""
        now = time.monotonic()
        if now < self._next_check:
            return ""
        self._next_check = now + HEALTH_SECS
        if worker_report.last_report() is not None:
            self.reported_at = now
            return ""
        silent_secs = now - self.reported_at
        if silent_secs > self.patience_secs:
            raise ServiceGone(f"no worker has reported for {silent_secs:.0f} s. Start again to continue.")
        if silent_secs > HEALTH_SECS:
            return f"no worker reports; waiting up to {self.patience_secs:g} s for one"
        return ""
