"""The lease client of this installation: its coordinator, and the threads around it."""

import functools
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import RedisError

from inference.auth.service_token import mint
from inference.gpu.coordinator.api import has_other_tenants
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.watcher import watch_loop
from inference.gpu.lease.client import CoordinatorLeaseClient, LeaseClientOptions
from inference.gpu.lease.listener import CommandListener, publish_freed
from inference.gpu.lease.port import Post
from inference.gpu.lease.reaper import SessionReaper
from inference.gpu.lease.redis_watch import RedisWatch
from inference.gpu.records.outside_sessions import OutsideSessionStore
from inference.gpu.transports.builtin import BuiltInCoordinator
from inference.gpu.transports.port import Coordinator, CoordinatorFault, SessionRecords
from inference.gpu.transports.remote import OutsideCoordinator
from inference.runtime.circuit_breaker import CircuitBreaker
from inference.runtime.redis_client import gpu_client, sync_client
from inference.runtime.repeating_thread import RepeatingThread

COMMAND_REPLY_SECS = 5.0
REAP_SECS = 2.0
PING_SECS = 1.0


class WorkerLeaseClient(CoordinatorLeaseClient):
    """Lease client with its command listener, and with the lease watcher of the built-in coordinator."""

    def __init__(self, post: Post, extend_deadline: Callable[[float], None] = lambda until: None) -> None:
        is_simulated = settings.GEMMA_GPU == "simulated"
        options = LeaseClientOptions(
            breaker=lambda: CircuitBreaker(
                max_failures=settings.GPU_BREAKER_FAILURES, pause_secs=settings.GPU_BREAKER_PAUSE_SECS
            ),
            grant_delay_secs=settings.GEMMA_GPU_GRANT_DELAY_MS / 1000 if is_simulated else 0.0,
            has_other_tenants=_has_other_tenants,
            extend_deadline=extend_deadline,
        )
        self._records = OutsideSessionStore()
        super().__init__(make_coordinator(self._records), post, functools.partial(publish_freed, gpu_client()), options)
        self._listener = CommandListener(
            sync_client(url=settings.GPU_REDIS_URL, reply_timeout_secs=COMMAND_REPLY_SECS), self.pause_received
        )
        self._watching = watch_loop() or reap_loop()

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
        self._records.close()


def make_coordinator(records: SessionRecords) -> Coordinator:
    """``records`` of the sessions at an outside coordinator; the built-in one has its ledger."""
    if settings.GPU_COORDINATOR_URL is None:
        return BuiltInCoordinator(gpu_client(), CoordinatorConfig.from_settings())
    return _outside_coordinator(settings.GPU_COORDINATOR_URL, records)


def reap_loop() -> RepeatingThread | None:
    """Make the thread that releases orphaned sessions, not begun yet; None with the built-in coordinator."""
    if settings.GPU_COORDINATOR_URL is None:
        return None
    store = OutsideSessionStore()
    reaper = SessionReaper(_outside_coordinator(settings.GPU_COORDINATOR_URL, store), store)
    return RepeatingThread("gpu sessions", REAP_SECS, reaper.run_once)


def _has_other_tenants() -> bool:
    """Return whether a resident does without the GPU, or another tenant waits for it."""
    if settings.GPU_COORDINATOR_URL is not None:  # who waits there cannot be seen
        return True
    try:
        return has_other_tenants(gpu_client())
    except RedisError:
        return True


def _outside_coordinator(url: str, records: SessionRecords) -> OutsideCoordinator:
    config = CoordinatorConfig.from_settings()
    return OutsideCoordinator(
        url,
        acquire_secs=config.pause_secs + config.freed_secs,
        mint=_mint,
        records=records,
        is_redis_gone=RedisWatch(sync_client(url=settings.GPU_REDIS_URL, reply_timeout_secs=PING_SECS)).is_gone,
    )


def _mint() -> str | None:
    try:
        return mint()
    except ImproperlyConfigured as error:
        raise CoordinatorFault("the service token's key cannot be used", in_doubt=False) from error
