"""Transport to the built-in coordinator by direct calls: it needs the ledger and Redis, and no web process."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import redis
from django.db import DatabaseError, connections

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant, OnWait

RENEWALS_PER_TTL = 4
# A request that leaves the queue loses its place, so that it waits there as long as it is not withdrawn.
LONGEST_WAIT_SECS = 3600.0
REPORT_WAIT_SECS = 1.0
NO_ANSWER = "the built-in coordinator cannot reach Redis or its database"


class BuiltInCoordinator:
    """Closes the database connections after each call: Django does not manage the lease client's threads."""

    kind = "builtin"

    def __init__(
        self, client: "redis.Redis[bytes]", config: CoordinatorConfig, *, requester: str = channels.OUR_SERVICE
    ) -> None:
        self._redis = client
        self._config = config
        self._requester = requester
        self._withdrawn = ""  # a session
        self._withdrawing = threading.Event()

    @property
    def renew_secs(self) -> float:
        return self._config.ttl_secs / RENEWALS_PER_TTL

    @property
    def lost_after_secs(self) -> float | None:
        # One renewal less than the TTL: the model has left the GPU before another session gets it.
        return self._config.ttl_secs - self.renew_secs

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        acquisition = Acquisition(
            self._redis,
            self._config,
            waiter=Waiter(self._requester, session_id, priority),
            timeout_secs=LONGEST_WAIT_SECS,
            renews=True,
        )
        reported = ""
        try:
            while True:
                # The ledger counts the lease from within the last step; this process may be suspended after it.
                step_began = time.monotonic()
                verdict = acquisition.step()
                if isinstance(verdict, AcquisitionGranted):
                    return Grant(verdict.epoch, self.kind, step_began)
                if verdict is not None:
                    return Denial(verdict.reason)
                if acquisition.waits_for != reported and acquisition.waited_secs >= REPORT_WAIT_SECS:
                    reported = acquisition.waits_for
                    on_wait(reported)
                if session_id == self._withdrawn:
                    acquisition.cancel()
                    return Denial("the request was withdrawn")
                self._withdrawing.wait(acquisition.pause_secs)
                self._withdrawing.clear()
        finally:
            connections.close_all()

    def withdraw(self, session_id: str) -> None:
        self._withdrawn = session_id
        self._withdrawing.set()

    def renew(self, session_id: str) -> str | None:
        try:
            epoch = api.renew(self._redis, self._config, session_id=session_id)
        except (redis.RedisError, DatabaseError) as error:
            raise CoordinatorFault(NO_ANSWER) from error
        finally:
            connections.close_all()
        return None if epoch is not None else "the lease has ended"

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        try:
            api.release(self._redis, session_id=session_id)
        except (redis.RedisError, DatabaseError) as error:
            raise CoordinatorFault(NO_ANSWER) from error
        finally:
            connections.close_all()

    def close(self) -> None:
        """Nothing to close: the process owns the Redis client."""
