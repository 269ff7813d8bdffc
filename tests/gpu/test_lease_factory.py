"""The lease client that this installation's settings make."""

import queue
import time

import pytest
from pytest_django import Settings

from inference.gpu.coordinator.watcher import watch_loop
from inference.gpu.lease.factory import WorkerLeaseClient, make_coordinator, reap_loop
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseRecalled
from inference.gpu.transports.builtin import BuiltInCoordinator
from inference.gpu.transports.remote import OutsideCoordinator, Unrecorded
from inference.models.gpu import GpuLedger
from tests.gpu.lease_client_contract import PATIENCE_SECS, until
from tests.gpu.tenants import Wire
from tests.gpu.test_acquiring import asking


def test_an_address_names_an_outside_coordinator(settings: Settings) -> None:
    assert isinstance(make_coordinator(Unrecorded()), BuiltInCoordinator)
    assert watch_loop() is not None
    assert reap_loop() is None
    settings.GPU_COORDINATOR_URL = "http://gpu-coordinator:8002"
    assert isinstance(make_coordinator(Unrecorded()), OutsideCoordinator)
    assert watch_loop() is None
    assert reap_loop() is not None


@pytest.mark.django_db(transaction=True)
def test_what_is_withdrawn_while_a_simulated_card_is_late_pauses_nobody(wire: Wire, settings: Settings) -> None:
    settings.GEMMA_GPU, settings.GEMMA_GPU_GRANT_DELAY_MS = "simulated", 200
    lease_client = WorkerLeaseClient(lambda event: None)
    lease_client.begin()
    lease_client.request(priority=1, session_ids=frozenset())
    time.sleep(0.05)
    lease_client.withdraw()
    time.sleep(0.3)
    lease_client.end(5.0)
    assert GpuLedger.objects.current().epoch == 0


@pytest.mark.django_db(transaction=True)
def test_a_simulated_card_is_granted_late_and_asked_back(wire: Wire, settings: Settings) -> None:
    settings.GEMMA_GPU, settings.GEMMA_GPU_GRANT_DELAY_MS = "simulated", 200
    settings.GPU_LEASE_TTL_SECS = 5.0
    events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
    lease_client = WorkerLeaseClient(events.put)
    lease_client.begin()
    try:
        until(lambda: bool(wire.execute_command("PUBSUB", "NUMPAT")))
        lease_client.request(priority=2, session_ids=frozenset())
        event = events.get(timeout=PATIENCE_SECS)
        assert isinstance(event, LeaseGranted)
        assert event.lease.waited_secs >= 0.2
        urgent = asking(wire, "urgent", priority=1)
        urgent.step()
        wanted = events.get(timeout=PATIENCE_SECS)
        assert isinstance(wanted, LeaseRecalled)
        urgent.cancel()
    finally:
        lease_client.end(PATIENCE_SECS)
