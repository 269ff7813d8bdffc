"""The lease client of this installation: its coordinator, and the threads around it."""

import functools

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from inference.auth.service_token import mint
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.watcher import watch_loop
from inference.gpu.lease.client import CoordinatorLeaseClient, LeaseClientOptions
from inference.gpu.lease.listener import CommandListener, publish_freed
from inference.gpu.lease.port import Post
from inference.gpu.transports.builtin import BuiltInCoordinator
from inference.gpu.transports.port import Coordinator, CoordinatorFault
from inference.gpu.transports.remote import OutsideCoordinator
from inference.runtime.circuit_breaker import CircuitBreaker
from inference.runtime.redis_client import gpu_client, sync_client

COMMAND_REPLY_SECS = 5.0


class WorkerLeaseClient(CoordinatorLeaseClient):
    """Lease client with its command listener, and with the lease watcher of the built-in coordinator."""

    def __init__(self, post: Post) -> None:
        is_simulated = settings.GEMMA_GPU == "simulated"
        options = LeaseClientOptions(
            breaker=lambda: CircuitBreaker(
                max_failures=settings.GPU_BREAKER_FAILURES, pause_secs=settings.GPU_BREAKER_PAUSE_SECS
            ),
            grant_delay_secs=settings.GEMMA_GPU_GRANT_DELAY_MS / 1000 if is_simulated else 0.0,
        )
        super().__init__(make_coordinator(), post, functools.partial(publish_freed, gpu_client()), options)
        self._listener = CommandListener(
            sync_client(url=settings.GPU_REDIS_URL, reply_timeout_secs=COMMAND_REPLY_SECS), self.pause_received
        )
        self._watching = watch_loop()

    def begin(self) -> None:
        super().begin()
        self._listener.begin()
        if self._watching is not None:
            self._watching.begin()

    def end(self, timeout_secs: float) -> None:
        """The client ends first: until it has released, the watcher has to look after the lease."""
        super().end(timeout_secs)
        self._listener.end(timeout_secs)
        if self._watching is not None:
            self._watching.end(timeout_secs)


def make_coordinator() -> Coordinator:
    config = CoordinatorConfig.from_settings()
    if settings.GPU_COORDINATOR_URL is None:
        return BuiltInCoordinator(gpu_client(), config)
    return OutsideCoordinator(
        settings.GPU_COORDINATOR_URL, acquire_secs=config.pause_secs + config.freed_secs, mint=_mint
    )


def _mint() -> str | None:
    try:
        return mint()
    except ImproperlyConfigured as error:
        raise CoordinatorFault("the service token's key cannot be used") from error
