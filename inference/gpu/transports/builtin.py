"""The built-in coordinator, called directly: the web process may be away, the ledger and Redis are enough."""

import threading
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

LOOKS_PER_TTL = 4
# Whoever leaves the line loses his place: as long as the card is wanted, we stay.
LONGEST_WAIT_SECS = 3600.0
TELL_AFTER_SECS = 1.0
UNAVAILABLE_ERRORS = "the built-in coordinator cannot reach Redis or its database"


class BuiltInCoordinator:
    """Connections of Django's are closed after each call: the keeper's threads are not Django's."""

    kind = "builtin"

    def __init__(
        self, client: "redis.Redis[bytes]", config: CoordinatorConfig, *, requester: str = channels.US
    ) -> None:
        self._redis = client
        self._config = config
        self._requester = requester
        self._withdrawn = ""  # a session
        self._withdrawing = threading.Event()

    @property
    def renew_secs(self) -> float:
        return self._config.ttl_secs / LOOKS_PER_TTL

    @property
    def lost_after_secs(self) -> float | None:
        # One look less than the others wait: we have left before somebody else comes.
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
        told = ""
        try:
            while (verdict := acquisition.step()) is None:
                if acquisition.waits_for != told and acquisition.waited_secs >= TELL_AFTER_SECS:
                    told = acquisition.waits_for
                    on_wait(told)
                if session_id == self._withdrawn:
                    acquisition.cancel()
                    return Denial("nobody needs the card any more")
                self._withdrawing.wait(acquisition.pause_secs)
                self._withdrawing.clear()
        finally:
            connections.close_all()
        return Grant(verdict.epoch, self.kind) if isinstance(verdict, AcquisitionGranted) else Denial(verdict.reason)

    def withdraw(self, session_id: str) -> None:
        self._withdrawn = session_id
        self._withdrawing.set()

    def renew(self, session_id: str) -> str | None:
        try:
            epoch = api.renew(self._redis, self._config, session_id=session_id)
        except (redis.RedisError, DatabaseError) as error:
            raise CoordinatorFault(UNAVAILABLE_ERRORS) from error
        finally:
            connections.close_all()
        return None if epoch is not None else "the lease has ended"

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        try:
            api.release(self._redis, session_id=session_id)
        except (redis.RedisError, DatabaseError) as error:
            raise CoordinatorFault(UNAVAILABLE_ERRORS) from error
        finally:
            connections.close_all()

    def close(self) -> None:
        """The client is the process's."""
