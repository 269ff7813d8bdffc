"""Answers of a coordinator that is broken or hostile: a refusal or a fault each, never an error that ends a thread."""

import json
from typing import Any

import httpx
import pytest

from inference.gpu.sdk.client import GpuRefused, TenantClient, TenantLease
from inference.gpu.transports.outside_protocol import MAX_EPOCH, OutsideProtocol
from inference.gpu.transports.port import CoordinatorFault, Grant

SESSION = "s" * 8
HUGE = "9" * 5000
BODIES = [
    b"[" * 100_000,
    b'{"success":' * 50_000,
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"NaN",
    b'"text"',
    HUGE.encode(),
    b'{"success": true, "lease_epoch": %s}' % HUGE.encode(),
    json.dumps({"success": "yes", "session_id": [], "state": {}, "lock_status": "x"}).encode(),
    json.dumps({"success": False, "error": {"deep": [1, 2]}}).encode(),
    json.dumps({"success": False, "error": "\x1b[2J\n" * 10_000}).encode(),
    json.dumps({"status": 5, "message": None, "lock_status": {"current_task": {}, "state": []}}).encode(),
]
STATUSES = (200, 204, 302, 404, 409, 500)


def protocol(answer: Any, status: int = 200) -> OutsideProtocol:  # noqa: ANN401  bytes, or a JSON value
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
    return OutsideProtocol("http://coordinator", acquire_secs=1, mint=lambda: None, transport=transport)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_every_call_ends_with_a_value_or_a_fault(body: bytes, status: int) -> None:
    coordinator = protocol(body, status)
    for ask in (
        lambda: coordinator.acquire(SESSION, 1, {}),
        lambda: coordinator.release(SESSION, {}),
        coordinator.holder,
    ):
        try:
            ask()
        except CoordinatorFault as error:
            assert len(str(error)) < 300, "the coordinator's text is bounded"


@pytest.mark.parametrize("epoch", [10**30, -1, 2**63, 1.5, 1e308, True, None, "7", [], {}])
def test_an_epoch_that_no_column_holds_counts_as_none(epoch: object) -> None:
    granted = protocol({"success": True, "session_id": SESSION, "lease_epoch": epoch}).acquire(SESSION, 1, {})
    assert isinstance(granted, Grant)
    assert granted.epoch == 0


@pytest.mark.parametrize("epoch", [0, 1, MAX_EPOCH])
def test_an_epoch_is_taken_as_it_is(epoch: int) -> None:
    granted = protocol({"success": True, "session_id": SESSION, "lease_epoch": epoch}).acquire(SESSION, 1, {})
    assert isinstance(granted, Grant)
    assert granted.epoch == epoch


def tenant(content: bytes, status: int = 200) -> TenantClient:
    client = TenantClient("http://coordinator", "tenant")
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
    client._client = httpx.Client(base_url="http://coordinator", transport=transport)
    return client


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_tenant_is_refused_or_has_a_lease(body: bytes, status: int) -> None:
    client = tenant(body, status)
    try:
        lease = client.acquire(SESSION, priority=1, timeout_secs=1)
        assert lease.renew_secs > 0
    except GpuRefused:
        pass
    assert client.renew(TenantLease(SESSION, 1.0)) in (True, False, None)
    assert client.release(SESSION) in (True, False)
    assert client.is_lent() in (True, False, None)


@pytest.mark.parametrize("within_ms", [10**30, 1e308, float("nan"), float("inf"), -5, 0, True, "5", []])
def test_a_lifetime_that_nobody_could_wait_for_is_not_taken(within_ms: object) -> None:
    body = json.dumps({"success": True, "session_id": SESSION, "renew_within_ms": within_ms}).encode()
    lease = tenant(body).acquire(SESSION, priority=1, timeout_secs=1)
    assert 0 < lease.renew_secs <= 3600
