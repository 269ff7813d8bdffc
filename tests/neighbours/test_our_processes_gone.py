"""All our processes are killed while the GPU is lent: the published state expires, and the residents go on."""

import time
from collections.abc import Callable, Iterator

import pytest
from django.db import connections

from inference.gpu.coordinator import api, broadcast
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.lease.factory import _has_other_tenants
from inference.gpu.sdk.client import TenantClient
from inference.gpu.sdk.tenant import GpuTenant
from inference.models import GpuLedger
from tests.neighbours.coordinator import Wire
from tests.neighbours.pause_manager import PauseManager

pytestmark = pytest.mark.django_db(transaction=True)
CONFIG = CoordinatorConfig(ttl_secs=0.5, pause_secs=5.0, freed_secs=6.0, unrenewed_secs=60.0)
PATIENCE_SECS = 20.0


@pytest.fixture
def tenant(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuTenant]:
    monkeypatch.setattr("inference.gpu.sdk.tenant.CHECK_SECS", 0.1)
    client = TenantClient("http://127.0.0.1:9", "whisper")
    with GpuTenant("whisper", wire, client, lambda: None, lambda: None, resident=True) as resident:
        wait_for(lambda: resident.is_allowed)
        yield resident


def wait_for(condition: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_SECS
        time.sleep(0.01)
    return time.monotonic() - began


def lend(wire: Wire, *, renews: bool = True) -> None:
    waiter = Waiter("gemma-service", "ours", 1)
    acquisition = Acquisition(wire, CONFIG, waiter=waiter, timeout_secs=10.0, renews=renews)
    while (verdict := acquisition.step()) is None:
        time.sleep(0.01)
    assert isinstance(verdict, AcquisitionGranted), verdict
    connections.close_all()


def test_a_paused_tenant_goes_on(wire: Wire, tenant: GpuTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "EXPIRY_SLACK_SECS", 1.0)
    lend(wire)
    assert not tenant.is_allowed
    assert wait_for(lambda: tenant.is_allowed) >= 0.5  # and nothing of ours runs any more


def test_while_one_process_of_ours_runs_the_state_lasts(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "EXPIRY_SLACK_SECS", 0.3)
    lend(wire)
    watcher = LeaseWatcher(CONFIG, clock=time.monotonic)
    for _ in range(12):
        assert api.renew(wire, CONFIG, session_id="ours") is not None
        watcher.once(wire)
        time.sleep(0.1)
        assert wire.get("gpu_state") == b"gemma"
    connections.close_all()


@pytest.mark.parametrize(("renews", "longest_secs"), [(True, 5.5), (False, 65.0)])
def test_it_outlasts_the_lease(wire: Wire, renews: bool, longest_secs: float) -> None:
    lend(wire, renews=renews)
    for key in ("gpu_state", "gpu_owner"):
        assert longest_secs - 2.0 < wire.pttl(key) / 1000 <= longest_secs
    api.release(wire, session_id="ours")
    assert wire.pttl("gpu_state") == -1  # a free GPU may be used without us
    assert GpuLedger.objects.current().is_free


def test_a_resident_or_a_waiting_request_is_another_tenant(
    wire: Wire, pause_manager: Callable[..., PauseManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _has_other_tenants()
    lend(wire)
    assert not _has_other_tenants()
    second = Acquisition(wire, CONFIG, waiter=Waiter("comfy", "theirs", 1), timeout_secs=5.0, renews=True)
    second.step()
    assert _has_other_tenants()
    second.cancel()
    assert not _has_other_tenants()
    pause_manager()
    assert _has_other_tenants()
    connections.close_all()
