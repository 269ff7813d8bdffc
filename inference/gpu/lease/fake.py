"""A lease_client without a coordinator: grants, refuses, wants back and loses when it is told to.

For tests of the placement, and for whoever wants to see a hand-over without a neighbour.
"""

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused, Post


class FakeLeaseClient:
    """``grant_after_secs`` None: nothing is granted until somebody calls ``grant``. ``refusing`` refuses instead."""

    def __init__(self, post: Post, *, grant_after_secs: float | None = 0.0, retry_secs: float = 1.0) -> None:
        self.grant_after_secs = grant_after_secs
        self.lease: Lease | None = None  # held, or granted and not released
        self.is_wanted = False
        self.refusing: str | None = None
        self.released: list[tuple[Lease, dict[str, Any]]] = []
        self.wants: list[tuple[int, frozenset[str]]] = []
        self._post = post
        self._retry_secs = retry_secs
        self._epoch = 0
        self._wanted_at = 0.0
        self._timer: threading.Timer | None = None
        self._is_over = False
        self._lock = threading.RLock()

    # ---- the keeper's contract ----

    def begin(self) -> None:
        """There is no thread to start."""

    def request(self, *, priority: int, session_ids: frozenset[str]) -> None:
        with self._lock:
            if self.lease is not None or self._is_over:
                return
            self.wants.append((priority, session_ids))
            if self.is_wanted:
                return
            self.is_wanted, self._wanted_at = True, time.monotonic()
            if self.grant_after_secs is not None:
                self._later(self.grant_after_secs)

    def withdraw(self) -> None:
        with self._lock:
            self.is_wanted = False
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
        state = "held" if self.lease else "waiting" if self.is_wanted else "idle"
        return {"coordinator": "fake", "state": state, "detail": self.refusing or ""}

    # ---- what a coordinator would do ----

    def grant(self) -> Lease | None:
        """Grant what is asked for, or refuse it while ``refusing`` says why; None when nothing was granted."""
        with self._lock:
            if not self.is_wanted or self.lease is not None:
                return None
            if self.refusing is not None:
                self._tell(LeaseRefused(self.refusing, self._retry_secs))
                self._later(self._retry_secs)
                return None
            self._stop_timer()
            self.is_wanted = False
            self._epoch += 1
            now = time.monotonic()
            self.lease = Lease(uuid.uuid4().hex, self._epoch, now, now - self._wanted_at, "builtin")
            self._tell(LeaseGranted(self.lease))
            return self.lease

    def recall(self, reason: str = "another program wants the GPU") -> None:
        with self._lock:
            if self.lease is not None:
                self._tell(LeaseRecalled(self.lease, reason))

    def lose(self, reason: str = "the lease has expired") -> None:
        with self._lock:
            if self.lease is not None:
                self._tell(LeaseLost(self.lease, reason))

    def _later(self, delay_secs: float) -> None:
        self._stop_timer()
        self._timer = threading.Timer(delay_secs, self.grant)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, event: LeaseEvent) -> None:
        self._post(event)
