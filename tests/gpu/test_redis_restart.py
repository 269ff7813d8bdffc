"""Redis is killed and comes back while the GPU is lent: one session has the GPU, and every process reconnects."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
import redis
from django.db import connections
from redis.backoff import NoBackoff
from redis.retry import Retry

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from gemma_project.supervisor.tether import tethered
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.gpu.lease.client import CoordinatorLeaseClient
from inference.gpu.lease.listener import publish_freed
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost
from inference.gpu.sdk import tenant as tenant_module
from inference.gpu.tenant import GpuTenant, gpu_tenant
from inference.gpu.transports.builtin import BuiltInCoordinator
from inference.models.gpu import GpuLedger
from inference.runtime.repeating_thread import RepeatingThread
from tests.gpu.lease_client_contract import PATIENCE_SECS, until

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = CoordinatorConfig(ttl_secs=1.5, pause_secs=2.0, freed_secs=4.0)


class Server:
    """A Valkey of the test's own, with its data on disk."""

    def __init__(self, folder: Path) -> None:
        self._socket, self._data = folder / "v.sock", folder / "data"
        valkey.prepare_directories(self._socket, self._data)
        self.start()
        self.url = socket_url(self._socket)
        self.client: redis.Redis[bytes] = redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 1))

    def start(self) -> None:
        command = tethered(valkey.command(self._socket, self._data))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: valkey.answers(self._socket))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def kill_for(self, secs: float, *, wiped: bool = False) -> None:
        self.kill()
        time.sleep(secs)
        self.start()
        if wiped:
            self.client.flushall()


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:  # short, since the socket lies in it
        server = Server(Path(folder))
        yield server
        server.client.close()
        server.kill()


@pytest.fixture
def tenant(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuTenant]:
    for name, secs in (("LISTEN_SECS", 0.02), ("CHECK_SECS", 0.1), ("RECONNECT_SECS", 0.05)):
        monkeypatch.setattr(tenant_module, name, secs)
    with gpu_tenant("transcription", on_pause=lambda: None, on_resume=lambda: None, redis_url=server.url) as tenant:
        yield tenant


@pytest.fixture
def events() -> "SimpleQueue[LeaseEvent]":
    return SimpleQueue()


@pytest.fixture
def lease_client(server: Server, events: "SimpleQueue[LeaseEvent]") -> Iterator[CoordinatorLeaseClient]:
    """The worker's side, and a web process's watch beside it."""
    coordinator = BuiltInCoordinator(server.client, CONFIG)
    lease_client = CoordinatorLeaseClient(coordinator, events.put, partial(publish_freed, server.client))
    watch = LeaseWatcher(CONFIG, clock=time.monotonic)
    watching = RepeatingThread("gpu watch", 0.1, lambda: watch.once(server.client))
    lease_client.begin()
    watching.begin()
    yield lease_client
    lease_client.end(PATIENCE_SECS)
    watching.end(PATIENCE_SECS)
    connections.close_all()


@pytest.fixture
def lease(lease_client: CoordinatorLeaseClient, tenant: GpuTenant, events: "SimpleQueue[LeaseEvent]") -> Lease:
    """The GPU is ours, and the tenant has left it."""
    until(lambda: tenant.is_allowed)
    lease_client.request(priority=1, session_ids=frozenset())
    granted = events.get(timeout=PATIENCE_SECS)
    assert isinstance(granted, LeaseGranted), granted
    assert not tenant.is_allowed
    return granted.lease


@pytest.mark.parametrize("wiped", [False, True])
def test_a_short_outage_costs_nothing(
    server: Server,
    lease_client: CoordinatorLeaseClient,
    tenant: GpuTenant,
    lease: Lease,
    events: "SimpleQueue[LeaseEvent]",
    wiped: bool,
) -> None:
    server.kill_for(0.3, wiped=wiped)
    time.sleep(CONFIG.ttl_secs)
    assert events.empty()
    assert not tenant.is_allowed
    lease_client.release(lease, {})
    until(lambda: tenant.is_allowed)
    until(lambda: GpuLedger.objects.current().is_free)  # its word that it goes on is still on the way


def test_after_a_long_one_the_holder_has_left_and_the_tenant_goes_on(
    server: Server,
    lease_client: CoordinatorLeaseClient,
    tenant: GpuTenant,
    lease: Lease,
    events: "SimpleQueue[LeaseEvent]",
) -> None:
    killed_at = time.monotonic()
    server.kill()
    lost = events.get(timeout=PATIENCE_SECS)
    assert isinstance(lost, LeaseLost)
    assert time.monotonic() - killed_at < CONFIG.ttl_secs + 0.5
    lease_client.release(lost.lease, {})
    server.start()
    until(lambda: tenant.is_allowed)
    until(lambda: GpuLedger.objects.current().is_free)


def test_a_tenant_left_alone_goes_on_after_a_while(server: Server, tenant: GpuTenant, lease: Lease) -> None:
    tenant.lonely_secs = 1.0
    server.kill()
    until(lambda: tenant.is_allowed)
