"""Answers of the coordinator, the memory service and the model, drawn: values or errors, with storable texts."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from chat.rag.query import SourceFilters
from chat.rag.retrieval import remote
from chat.schemas.responses.output import GrowingItem, OutputKind
from inference.gpu.protocol import channels
from inference.gpu.sdk.client import GpuRefused, TenantLease
from inference.gpu.transports.outside_protocol import MAX_EPOCH
from inference.gpu.transports.port import CoordinatorFault, Denial, Grant
from tests.faults.fuzzing import NUMBERS, TEXTS
from tests.gpu.test_hostile_answers import SESSION, protocol, tenant
from tests.parsers.drawing import drawn, foreign_json, is_storable, objects

STATUSES = st.sampled_from([200, 200, 200, 200, 204, 302, 404, 409, 500])
LEASE_NAMES = ["success", "session_id", "lease_epoch", "error", "status", "message", "state", "lock_status"]
LEASE_NAMES += ["renew_within_ms", "current_task", "lease", "queue"]
LEASE_VALUES = st.sampled_from([True, False, SESSION, "gpu_acquired", "free", "pausing", "", None]) | NUMBERS | TEXTS
leases = foreign_json(objects(LEASE_NAMES, LEASE_VALUES | objects(LEASE_NAMES, LEASE_VALUES)))


@drawn
@given(leases, STATUSES)
def test_the_coordinators(answer: bytes, status: int) -> None:
    coordinator = protocol(answer, status)
    try:
        verdict = coordinator.acquire(SESSION, 1, {})
    except CoordinatorFault as error:
        assert len(str(error)) < 300
    else:
        assert isinstance(verdict, Grant | Denial)
        if isinstance(verdict, Grant):
            assert 0 <= verdict.epoch <= MAX_EPOCH
        else:
            assert is_storable(verdict.reason)
            assert verdict.reason.isprintable()
    for call in (lambda: coordinator.release(SESSION, {}), coordinator.holder):
        try:
            call()
        except CoordinatorFault as error:
            assert len(str(error)) < 300


def test_the_coordinators_as_a_tenant_reads_them() -> None:
    client = tenant(b"")

    @drawn
    @given(leases, STATUSES)
    def one(answer: bytes, status: int) -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(status, content=answer))
        client._client = httpx.Client(base_url="http://coordinator", transport=transport)
        try:
            assert 0 < client.acquire(SESSION, priority=1, timeout_secs=1).renew_secs <= 3600
        except GpuRefused as error:
            assert len(str(error)) < 1_000
        assert client.renew(TenantLease(SESSION, 1.0)) in (True, False, None)
        assert client.release(SESSION) in (True, False)
        assert client.is_lent() in (True, False, None)

    one()


@drawn
@given(foreign_json(objects(["command", "ack_type", "service", "session_id", "protocol", "timestamp"], LEASE_VALUES)))
def test_messages_of_other_programs(data: bytes) -> None:
    message = channels.decode(data)
    if message is not None:
        assert isinstance(channels.protocol_of(message), int)


HIT_NAMES = ["id", "text", "type", "doc_type", "score", "speaker", "title", "created_at", "timestamp", "start_time"]
HIT_NAMES += ["emotion", "body", "segment_id", "memory_id", "metadata"]
HIT_VALUES = TEXTS | NUMBERS | st.sampled_from(["memory", "transcript_segment", "2026-03-01T14:05:00Z", 1e300, 10**400])
USUAL = {"text": "Sarah said it", "score": 0.9}
hits = objects(HIT_NAMES, HIT_VALUES | objects(HIT_NAMES, HIT_VALUES)).map(lambda more: USUAL | more)
found = st.fixed_dictionaries(
    {"results": st.lists(hits, min_size=1, max_size=4)}, optional={"success": st.sampled_from([True, True, False])}
)
sound = found.map(lambda answer: json.dumps(answer).encode())
searches = sound | sound | foreign_json(found) | foreign_json(objects(["results", "success"], st.lists(hits)))


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Status and body of the next answers of the memory service."""
    settings.RAG_SERVICE_URL = "http://memories.test"
    settings.RAG_BREAKER_FAILURES = 10**9
    remote.breaker_for.cache_clear()
    answers: list[Any] = [200, b""]

    async def post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[int, bytes]:
        return answers[0], answers[1]

    monkeypatch.setattr(remote, "_post", post)
    # Nothing is sent: the certificates, which each client reads, would take most of the time.
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, verify=False))
    yield answers
    remote.breaker_for.cache_clear()


def test_the_memory_services(service: list[Any]) -> None:
    n_with_sources = 0

    @drawn
    @given(searches, STATUSES)
    def one(answer: bytes, status: int) -> None:
        nonlocal n_with_sources
        service[:] = [status, answer]
        result = remote.search(query="What did Sarah say?", top_k=3, filters=SourceFilters())
        assert len(result.sources) <= 3
        assert not (result.sources and result.error)
        n_with_sources += bool(result.sources)
        for source in result.sources:
            wire = json.dumps(source.as_wire(), allow_nan=False, ensure_ascii=False)
            assert is_storable(wire)
            assert source.age_key
            assert is_storable(source.time_text)

    one()
    assert n_with_sources > 0


@drawn
@given(foreign_json())
def test_arguments_of_a_call(text: bytes) -> None:
    item = GrowingItem(OutputKind.CALL, 0, 0, pieces=[text.decode(errors="replace")])
    assert isinstance(item.arguments, dict)
