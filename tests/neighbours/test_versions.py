"""A service and a tenant library of different releases: messages without a version, and answers without one."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from django.conf import settings
from django.db import connections

from inference.gpu.coordinator import preemption
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, AcquisitionRefused, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels, presence
from inference.gpu.sdk.client import GpuRefused, TenantClient
from inference.gpu.sdk.tenant import GpuTenant
from inference.runtime.redis_client import sync_client
from tests.neighbours.coordinator import NeighbourCoordinator, Wire
from tests.neighbours.lending import give_back, wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def acquire(wire: Wire, session_id: str = "ours") -> Verdict:
    config = CoordinatorConfig(pause_secs=1.0, freed_secs=3.0)
    waiter = Waiter("gemma-service", session_id, 1)
    acquisition = Acquisition(wire, config, waiter=waiter, timeout_secs=8.0, renews=True)
    try:
        while (verdict := acquisition.step()) is None:
            time.sleep(acquisition.pause_secs)
    finally:
        connections.close_all()
    return verdict


class OlderTenant:
    """A resident with the library of the release before: no version, no instance, no announcement."""

    def __init__(self, wire: Wire) -> None:
        self.is_loaded = True
        self.pause_secs = 0.0
        self._wire = wire
        self._pubsub = wire.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe("gpu:command", "transcription_pause", "transcription_resume")
        self._is_over = threading.Event()
        self._last = ""
        wait_for(lambda: wire.pubsub_numsub("gpu:command")[0][1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(5.0)
        self._pubsub.close()

    def _run(self) -> None:
        while not self._is_over.is_set():
            raw = self._pubsub.get_message(timeout=0.02)
            if raw is None:
                continue
            message, channel = json.loads(raw["data"]), raw["channel"].decode()
            session = message.get("session_id") or message.get("task_id")
            if channel == "transcription_pause" or message.get("command") == "pause":
                self._pause(session)
            else:
                self.is_loaded, self._last = True, ""
                self._answer("resumed", session)

    def _pause(self, session: str) -> None:
        if session == self._last:
            self._answer("paused", session)
            return
        self._publish("transcription_paused", status="paused", offloading=True, queued_chunks=0)
        time.sleep(self.pause_secs)
        self.is_loaded, self._last = False, session
        self._publish("vram_freed", status="freed")
        self._answer("paused", session)

    def _answer(self, ack_type: str, session: str) -> None:
        fields = {"ack_type": ack_type, "service": "transcription", "session_id": session, "error": None}
        self._publish("gpu:ack:transcription", **fields, metadata={})

    def _publish(self, channel: str, **fields: object) -> None:
        self._wire.publish(channel, json.dumps(fields | {"timestamp": datetime.now(UTC).isoformat()}))


@pytest.fixture
def older_tenant(wire: Wire) -> Iterator[OlderTenant]:
    tenant = OlderTenant(wire)
    yield tenant
    tenant.close()


@pytest.fixture
def tenant(wire: Wire) -> Iterator[Callable[..., GpuTenant]]:
    tenants: list[GpuTenant] = []

    def begin(url: str = "http://127.0.0.1:9", pause: Callable[[], object] = lambda: None) -> GpuTenant:
        client = sync_client(url=settings.GPU_REDIS_URL)  # which the tenant closes
        tenants.append(GpuTenant("whisper", client, TenantClient(url, "whisper"), pause, lambda: None, resident=True))
        tenants[-1].__enter__()
        wait_for(lambda: tenants[-1].is_allowed)
        return tenants[-1]

    yield begin
    for one in tenants:
        one.__exit__()


class TestOlderTenant:
    @pytest.mark.parametrize("pause_secs", [0.0, 0.6])
    def test_it_leaves_and_comes_back(self, wire: Wire, older_tenant: OlderTenant, pause_secs: float) -> None:
        older_tenant.pause_secs = pause_secs
        for number in range(2):
            verdict = acquire(wire, f"s{number}")
            assert isinstance(verdict, AcquisitionGranted), verdict
            assert not older_tenant.is_loaded
            assert verdict.waited_secs < 2.0 + pause_secs
            give_back(wire)
            wait_for(lambda: older_tenant.is_loaded)

    def test_beside_a_tenant_of_ours_both_have_to_leave(
        self, wire: Wire, older_tenant: OlderTenant, tenant: Callable[..., GpuTenant]
    ) -> None:
        newer = tenant()
        older_tenant.pause_secs = 0.5
        assert isinstance(acquire(wire), AcquisitionGranted)
        assert not older_tenant.is_loaded
        assert not newer.is_allowed

    def test_its_version_is_logged_once(
        self, wire: Wire, older_tenant: OlderTenant, caplog: pytest.LogCaptureFixture
    ) -> None:
        preemption.note_version.cache_clear()
        with caplog.at_level(logging.INFO, "inference.gpu.coordinator.preemption"):
            for number in range(2):
                assert isinstance(acquire(wire, f"s{number}"), AcquisitionGranted)
                give_back(wire)
        assert caplog.text.count("another protocol service=transcription protocol=1") == 1


class TestOlderService:
    """Its coordinator sends no version, refuses with 200, and takes replies while it sends the pause for lost."""

    @pytest.fixture(params=["v2", "v1"])
    def coordinator(self, wire: Wire, request: pytest.FixtureRequest) -> Iterator[NeighbourCoordinator]:
        older = NeighbourCoordinator(wire, request.param)
        older.flush_secs = 0.1
        yield older
        older.stop()

    def test_a_tenant_of_ours_leaves_and_comes_back(
        self,
        coordinator: NeighbourCoordinator,
        tenant: Callable[..., GpuTenant],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        resident = tenant(coordinator.url)
        with caplog.at_level(logging.INFO, "inference.gpu.sdk.tenant"):
            for number in range(2):
                assert coordinator._take(f"s{number}", "gemma-service") is None
                assert not resident.is_allowed
                coordinator._end()
                wait_for(lambda: resident.is_allowed)
        assert caplog.text.count("another protocol service=whisper protocol=1") == 1

    def test_it_is_granted_when_the_last_of_two_has_left(
        self, coordinator: NeighbourCoordinator, tenant: Callable[..., GpuTenant]
    ) -> None:
        coordinator.freed_secs = 10.0
        quick, slow = tenant(coordinator.url), tenant(coordinator.url, lambda: time.sleep(1.0))
        began = time.monotonic()
        assert coordinator._take("s1", "gemma-service") is None
        assert time.monotonic() - began >= 1.0
        assert [one.is_allowed for one in (quick, slow)] == [False, False]

    @pytest.mark.slow
    def test_a_wiped_redis_leaves_no_two_waiting_for_each_other(
        self, wire: Wire, coordinator: NeighbourCoordinator, tenant: Callable[..., GpuTenant]
    ) -> None:
        coordinator.freed_secs = 10.0
        left: list[float] = []

        def leave_slowly() -> None:
            time.sleep(1.0)
            left.append(time.monotonic())

        residents = [tenant(coordinator.url), tenant(coordinator.url, leave_slowly)]
        wiping = threading.Timer(0.5, wire.flushall)  # the first has left, the second not yet
        wiping.start()
        assert coordinator._take("s1", "gemma-service") is None
        wiping.join()
        assert left, "it was granted before the second had left"
        assert [one.is_allowed for one in residents] == [False, False]
        coordinator._end()
        wait_for(lambda: all(one.is_allowed for one in residents))

    def test_one_that_does_not_leave_keeps_no_other_paused(
        self, wire: Wire, coordinator: NeighbourCoordinator, tenant: Callable[..., GpuTenant]
    ) -> None:
        hung = presence.Presence("whisper", "hung", is_resident=True)
        resident = tenant(coordinator.url)
        presence.announce(wire, hung)
        assert coordinator._take("s1", "gemma-service") is not None
        coordinator._end()
        wait_for(lambda: resident.is_allowed, 8.0)  # before the announcement has expired

    def test_a_late_resume_of_an_earlier_session_is_not_obeyed(
        self, wire: Wire, coordinator: NeighbourCoordinator, tenant: Callable[..., GpuTenant]
    ) -> None:
        resident = tenant(coordinator.url)
        assert coordinator._take("s2", "gemma-service") is None
        late = {"command": "resume", "session_id": "s1", "timestamp": datetime.now(UTC).isoformat()}
        wire.publish("gpu:command", json.dumps(late))
        wire.publish("transcription_resume", json.dumps({"task_id": "s1", "timestamp": late["timestamp"]}))
        time.sleep(1.0)
        assert not resident.is_allowed
        coordinator._end()
        wait_for(lambda: resident.is_allowed)

    def test_a_wiped_redis_frees_no_card_that_is_lent(
        self, wire: Wire, coordinator: NeighbourCoordinator, tenant: Callable[..., GpuTenant]
    ) -> None:
        resident = tenant(coordinator.url)
        assert coordinator._take("s1", "gemma-service") is None
        wire.flushall()
        time.sleep(4.5)  # more checks than a missing state is waited for
        assert not resident.is_allowed
        coordinator.state, coordinator.session = "transcription", ""  # and its resume is lost
        wait_for(lambda: resident.is_allowed)

    @pytest.mark.slow
    def test_nor_while_the_holder_shows_itself(self, wire: Wire, tenant: Callable[..., GpuTenant]) -> None:
        resident = tenant()  # no coordinator answers
        wire.set("gpu_state", "gemma")
        wait_for(lambda: not resident.is_allowed)
        wire.set(channels.HELD, "s1", px=5000)
        wire.delete("gpu_state")
        time.sleep(4.5)
        assert not resident.is_allowed
        wait_for(lambda: resident.is_allowed)


class TestHandshake:
    def test_a_tenant_announces_itself_and_its_version(self, wire: Wire, tenant: Callable[..., GpuTenant]) -> None:
        tenant()
        wait_for(lambda: presence.present(wire))
        (announced,) = presence.present(wire)
        assert (announced.service, announced.is_resident, announced.protocol) == ("whisper", True, channels.PROTOCOL)

    def test_and_is_forgotten_when_it_leaves(self, wire: Wire) -> None:
        client = TenantClient("http://127.0.0.1:9", "whisper")
        with GpuTenant("whisper", wire, client, lambda: None, lambda: None, resident=True) as resident:
            wait_for(lambda: resident.is_allowed and presence.present(wire))
        assert presence.present(wire) == []

    @pytest.mark.parametrize("version", [None, "3", True, 1.5, [], {}])
    def test_a_version_that_is_no_number_is_the_first(self, version: object) -> None:
        assert channels.protocol_of({"protocol": version}) == channels.FIRST_PROTOCOL

    @pytest.mark.parametrize("value", [b"", b"[]", b"{", b'{"service": null}', b"\xff"])
    def test_a_damaged_announcement_stops_no_pause(self, wire: Wire, value: bytes) -> None:
        wire.sadd(presence.TENANTS, "x")
        wire.set(presence.TENANT + "x", value)
        assert not isinstance(acquire(wire), AcquisitionRefused)

    def test_a_newer_version_is_read_as_ours(self, wire: Wire, tenant: Callable[..., GpuTenant]) -> None:
        resident = tenant()
        message = json.loads(channels.command("pause", session_id="s1", requester="gemma-service"))
        wire.publish("gpu:command", json.dumps(message | {"protocol": 99, "field_of_the_future": {}}))
        wait_for(lambda: not resident.is_allowed)

    def test_an_older_clients_refusal(self, coordinator: NeighbourCoordinator) -> None:
        """A service that refuses with 200, as the release before did, and one that does so with 409."""
        coordinator.grant_to("theirs")
        for status in (200, 409):
            coordinator.refusal_status = status
            client = TenantClient(coordinator.url, "ml-service")
            with pytest.raises(GpuRefused):
                client.acquire("ours", priority=1, timeout_secs=1.0)
            client.close()
        assert coordinator.session == "theirs"
