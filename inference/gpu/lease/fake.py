"""A lease client without a coordinator: a test makes it grant, refuse, recall and lose leases."""

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from inference.gpu.lease.port import Lease, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post


class FakeLeaseClient:
    """``grant_after_secs`` None: only ``grant`` grants. ``refusing``: the reason of refusals while it is set."""

    def __init__(self, post: Post, *, grant_after_secs: float | None = 0.0, retry_secs: float = 1.0) -> None:
        self.grant_after_secs = grant_after_secs
        self.lease: Lease | None = None  # held, or granted and not released
        self.is_requested = False
        self.is_wanted_elsewhere = True
        self.refusing: str | None = None
        self.released: list[tuple[Lease, dict[str, Any]]] = []
        self.requests: list[tuple[int, frozenset[str]]] = []
        self._post = post
        self._retry_secs = retry_secs
        self._epoch = 0
        self._requested_at = 0.0
        self._timer: threading.Timer | None = None
        self._is_over = False
        self._lock = threading.RLock()

    # ---- port.LeaseClient ----

    def begin(self) -> None:
        """There is no thread to start."""

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        with self._lock:
            if self.lease is not None or self._is_over:
                return
            self.requests.append((priority, session_ids))
            if self.is_requested:
                return
            self.is_requested, self._requested_at = True, time.monotonic()
            if self.grant_after_secs is not None:
                self._later(self.grant_after_secs)

    def withdraw(self) -> None:
        with self._lock:
            self.is_requested = False
            self._stop_timer()

    def release(self, lease: Lease, result: Mapping[str, Any]) -> None:
        with self._lock:
            if self.lease == lease:
                self.lease = None
                self.released.append((lease, dict(result)))

    def end(self, timeout_secs: float) -> None:
        with self._lock:
            self._is_over = True
            self.withdraw()
            if self.lease is not None:
                self.release(self.lease, {})

    def describe(self) -> dict[str, Any]:
        state = "held" if self.lease else "waiting" if self.is_requested else "idle"
        return {"coordinator": "fake", "state": state, "detail": self.refusing or ""}

    # ---- in place of a coordinator ----

    def grant(self) -> Lease | None:
        """Grant the request, or refuse it while ``refusing`` is set; None when nothing was granted."""
        with self._lock:
            if not self.is_requested or self.lease is not None:
                return None
            if self.refusing is not None:
                self._post(LeaseRefused(self.refusing, self._retry_secs))
                self._later(self._retry_secs)
                return None
            self._stop_timer()
            self.is_requested = False
            self._epoch += 1
            now = time.monotonic()
            self.lease = Lease(uuid.uuid4().hex, self._epoch, now, now - self._requested_at, "builtin")
            self._post(LeaseGranted(self.lease))
            return self.lease

    def recall(self, reason: str = "another program wants the GPU") -> None:
        with self._lock:
            if self.lease is not None:
                self._post(LeaseRecalled(self.lease, reason))

    def lose(self, reason: str = "the lease has expired") -> None:
        with self._lock:
            if self.lease is not None:
                self._post(LeaseLost(self.lease, reason))

    def _later(self, delay_secs: float) -> None:
        self._stop_timer()
        self._timer = threading.Timer(delay_secs, self.grant)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
