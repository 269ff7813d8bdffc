"""The lease client over the built-in coordinator, and over an outside one in both generations of the protocol."""

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx
import pytest
from django.db import connections
from redis.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from inference.gpu.coordinator import api
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.lease.client import CoordinatorLeaseClient, LeaseClientOptions
from inference.gpu.lease.listener import CommandListener, publish_freed
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseLost, LeaseRecalled, LeaseRefused
from inference.gpu.lease.request import Backoff
from inference.gpu.transports.builtin import BuiltInCoordinator
from inference.gpu.transports.port import Coordinator, CoordinatorFault, Denial, Grant, OnWait
from inference.gpu.transports.remote import OutsideCoordinator
from inference.runtime.circuit_breaker import CircuitBreaker
from tests.gpu.lease_client_contract import PATIENCE_SECS, LeaseClientContract, assert_quiet, granted, next_event, until
from tests.gpu.outside import CoordinatorProcess
from tests.gpu.tenants import Transcription, Wire
from tests.gpu.test_acquiring import asking

QUICK = CoordinatorConfig(ttl_secs=0.6, pause_secs=0.3, freed_secs=0.6, max_hold_secs=0.2)
OPTIONS = LeaseClientOptions(
    backoff=Backoff(first_secs=0.05, longest_secs=0.1), breaker=lambda: CircuitBreaker(max_failures=3, pause_secs=0.5)
)


class LeaseClientScene:
    """A real lease client with its listener; subclasses provide the coordinator."""

    def __init__(self, wire: Wire, coordinator: Coordinator, options: LeaseClientOptions = OPTIONS) -> None:
        self.wire = wire
        self.events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
        self.lease_client = CoordinatorLeaseClient(coordinator, self.events.put, partial(publish_freed, wire), options)
        self.listener = CommandListener(wire, self.lease_client.pause_received)
        self.lease_client.begin()
        self.listener.begin()
        until(lambda: bool(wire.execute_command("PUBSUB", "NUMPAT")))

    def pause(self, session_id: str) -> None:
        message = f'{{"command":"pause","session_id":"{session_id}","requester":"ml-service","timeout_ms":1000}}'
        self.wire.publish("gpu:command", message)

    def end(self) -> None:
        self.lease_client.end(PATIENCE_SECS)
        self.listener.end(PATIENCE_SECS)


class SuspendedAfterGrant(BuiltInCoordinator):
    """Returns its first grant ``secs`` late."""

    def __init__(self, wire: Wire, secs: float) -> None:
        super().__init__(wire, QUICK)
        self._secs = secs
        self.granted_before = 0.0

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        answer = super().acquire(session_id=session_id, priority=priority, metadata=metadata, on_wait=on_wait)
        self.granted_before = time.monotonic()
        time.sleep(self._secs)
        self._secs = 0.0
        return answer


class BuiltInScene(LeaseClientScene):
    def __init__(
        self, wire: Wire, coordinator: Coordinator | None = None, options: LeaseClientOptions = OPTIONS
    ) -> None:
        super().__init__(wire, coordinator or BuiltInCoordinator(wire, QUICK), options)
        self._resident: Transcription | None = None

    def refuse(self, reason: str | None) -> None:
        if reason is not None:  # the GPU is not released
            self._resident = Transcription(self.wire, old=False, new=True, error=reason)
        elif self._resident is not None:
            self._resident.error = None

    def recall(self) -> None:
        seen = api.status(self.wire)
        self.pause(str(seen.session_id))

    def take_away(self) -> None:
        api.reset(self.wire)

    def n_held(self) -> int:
        return int(api.status(self.wire).session_id is not None)

    def end(self) -> None:
        super().end()
        if self._resident is not None:
            self._resident.leave()
        connections.close_all()


@pytest.mark.django_db(transaction=True)
class TestWithTheBuiltIn(LeaseClientContract):
    @pytest.fixture
    def scene(self, wire: Wire) -> Iterator[BuiltInScene]:
        scene = BuiltInScene(wire)
        yield scene
        scene.end()

    def test_it_stops_using_the_card_when_it_cannot_renew(
        self, scene: BuiltInScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = granted(scene)
        began = time.monotonic()
        monkeypatch.setattr(api, "renew", _away)
        lost = next_event(scene, LeaseLost)
        assert lost.lease == lease
        assert time.monotonic() - began < QUICK.ttl_secs

    @pytest.mark.parametrize("secs", [0.5, 0.6, 1.5])
    def test_a_grant_that_was_read_after_its_lease_may_have_ended_is_none(self, wire: Wire, secs: float) -> None:
        """As when the process is suspended between the grant and its use."""
        scene = BuiltInScene(wire, SuspendedAfterGrant(wire, secs))
        try:
            scene.lease_client.request(priority=1, session_ids=frozenset())
            assert next_event(scene, LeaseRefused).reason == "the grant was not taken in time"
            granted_later = next_event(scene, LeaseGranted)
            assert api.status(wire).session_id == granted_later.lease.session_id
        finally:
            scene.end()

    @pytest.mark.parametrize("secs", [0.0, 0.2, 0.35])
    def test_the_time_of_a_lease_begins_with_its_grant(self, wire: Wire, secs: float) -> None:
        deadlines: list[float] = []
        coordinator = SuspendedAfterGrant(wire, secs)
        options = dataclasses.replace(OPTIONS, extend_deadline=deadlines.append)
        scene = BuiltInScene(wire, coordinator, options)
        try:
            scene.lease_client.request(priority=1, session_ids=frozenset())
            next_event(scene, LeaseGranted)
            assert deadlines[0] < coordinator.granted_before + QUICK.ttl_secs
        finally:
            scene.end()

    def test_one_that_waits_in_the_line_leaves_it_at_once(self, scene: BuiltInScene) -> None:
        hold(scene.wire, "other")
        scene.lease_client.request(priority=1, session_ids=frozenset())
        until(lambda: len(api.status(scene.wire).waiting) == 1)
        # A waiting request is shown the holder, and keeps its place.
        assert next_event(scene, LeaseRefused) == LeaseRefused("gemma-service holds the GPU", 0.0)
        scene.lease_client.withdraw()
        until(lambda: api.status(scene.wire).waiting == [])
        assert_quiet(scene)

    def test_a_person_who_comes_while_batch_work_waits_does_not_wait_like_it(self, scene: BuiltInScene) -> None:
        hold(scene.wire, "other")
        scene.lease_client.request(priority=2, session_ids=frozenset())
        until(lambda: [waiter.priority for waiter in api.status(scene.wire).waiting] == [2])
        scene.lease_client.request(priority=1, session_ids=frozenset({"talk"}))
        until(lambda: [waiter.priority for waiter in api.status(scene.wire).waiting] == [1])
        api.release(scene.wire, session_id="other")
        events = [scene.events.get(timeout=PATIENCE_SECS)]
        while not isinstance(events[-1], LeaseGranted):
            events.append(scene.events.get(timeout=PATIENCE_SECS))
        assert {event.retry_in_secs for event in events if isinstance(event, LeaseRefused)} <= {0.0}

    def test_wanted_again_while_it_is_being_withdrawn_is_no_refusal(self, scene: BuiltInScene) -> None:
        hold(scene.wire, "other")
        scene.lease_client.request(priority=1, session_ids=frozenset())
        until(lambda: len(api.status(scene.wire).waiting) == 1)
        scene.lease_client.withdraw()
        scene.lease_client.request(priority=1, session_ids=frozenset())
        api.release(scene.wire, session_id="other")
        while not isinstance(event := scene.events.get(timeout=PATIENCE_SECS), LeaseGranted):
            assert isinstance(event, LeaseRefused)
            assert event.reason == "gemma-service holds the GPU"

    def test_somebody_more_urgent_gets_the_card_and_hears_when_it_is_free(self, scene: BuiltInScene) -> None:
        scene.lease_client.request(priority=2, session_ids=frozenset())
        lease = next_event(scene, LeaseGranted).lease
        urgent = asking(scene.wire, "urgent", requester="ml-service", priority=1)
        answers: queue.SimpleQueue[object] = queue.SimpleQueue()

        def wait() -> None:
            while (verdict := urgent.step()) is None:
                time.sleep(0.01)
            answers.put(verdict)
            connections.close_all()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert "ml-service" in str(scene.events.get(timeout=PATIENCE_SECS))
        scene.lease_client.release(lease, {"n_served": 1})
        answers.get(timeout=PATIENCE_SECS)
        waiting.join()
        assert api.status(scene.wire).owner == "ml-service"


def hold(wire: Wire, session_id: str) -> None:
    """Another session holds the GPU, until it is released."""
    acquisition = asking(wire, session_id, renews=False)
    while acquisition.step() is None:
        time.sleep(0.01)


def _away(*args: object, **options: object) -> None:
    raise RedisConnectionError("away")


class OutsideScene(LeaseClientScene):
    """Over a process of its own, which uses nothing of ours."""

    def __init__(self, wire: Wire, process: CoordinatorProcess) -> None:
        self.process = process
        self.coordinator = OutsideCoordinator(process.url, acquire_secs=1.0, mint=lambda: None)
        super().__init__(wire, self.coordinator)

    def refuse(self, reason: str | None) -> None:
        self.process.behave(refuse=reason)

    def recall(self) -> None:
        self.pause(self.process.holder()[0])

    def take_away(self) -> None:
        self.process.behave(holder=[])  # as after a restart

    def n_held(self) -> int:
        return len(self.process.holder())


@pytest.fixture(scope="module", params=["v2", "v1"])
def process(request: pytest.FixtureRequest) -> Iterator[CoordinatorProcess]:
    process = CoordinatorProcess(request.param)
    yield process
    process.stop()


def release_in_vain(scene: OutsideScene) -> None:
    """The lease goes, but the coordinator does not take the word for it."""
    lease = granted(scene)
    scene.process.behave(status=503)
    scene.lease_client.release(lease, {})


class TestWithAnOutsideOne(LeaseClientContract):
    @pytest.fixture
    def scene(self, wire: Wire, process: CoordinatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutsideScene]:
        monkeypatch.setattr(OutsideCoordinator, "renew_secs", 0.1)
        process.behave(holder=[])
        scene = OutsideScene(wire, process)
        yield scene
        scene.end()

    def test_another_session_has_the_card(self, scene: OutsideScene) -> None:
        lease = granted(scene)
        scene.process.behave(holder=["somebody-else"])
        assert next_event(scene, LeaseLost).reason == "another session has the GPU"
        scene.lease_client.release(lease, {})
        assert_quiet(scene)
        assert scene.process.holder() == ["somebody-else"]  # a late release ends no other session

    def test_the_one_who_wanted_it_hears_that_it_is_free(self, scene: OutsideScene) -> None:
        lease = granted(scene)
        heard = scene.wire.pubsub(ignore_subscribe_messages=True)
        heard.subscribe("gpu:ack:gemma-service")
        scene.pause("somebody-else")
        assert_quiet(scene)  # not ours
        scene.pause(lease.session_id)
        scene.pause(lease.session_id)
        assert next_event(scene, LeaseRecalled).reason == "ml-service wants the GPU"
        assert_quiet(scene)  # sent twice, reported once, and not acknowledged while the GPU is in use
        assert heard.get_message(timeout=0.0) is None
        scene.lease_client.release(lease, {"freed_mb": 900})
        message = _next(heard)
        assert (message["ack_type"], message["service"], message["session_id"]) == (
            "paused",
            "gemma-service",
            lease.session_id,
        )
        assert message["metadata"] == {"freed_mb": 900}
        assert scene.process.holder() == []  # released before the pause was sent
        scene.pause(lease.session_id)  # a listener has missed it
        assert _next(heard)["session_id"] == lease.session_id
        heard.close()

    @pytest.mark.parametrize("mood", [{"status": 503}, {"status": 404}, {"hang_secs": 1}])
    def test_one_that_fails_is_left_alone_after_a_while_and_tried_again(
        self, scene: OutsideScene, mood: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inference.gpu.transports.outside_protocol.ANSWER_SECS", -0.9)
        monkeypatch.setattr("inference.gpu.transports.outside_protocol.SHORT_SECS", 0.1)
        monkeypatch.setattr("inference.gpu.transports.outside_protocol.MIN_TIMEOUT_MS", 100)
        scene.process.behave(**mood)
        scene.lease_client.request(priority=1, session_ids=frozenset())
        reasons = [next_event(scene, LeaseRefused).reason for _ in range(4)]
        assert "left alone" in reasons[-1]
        assert scene.lease_client.describe()["breaker"] == "open"
        scene.process.behave()
        until(lambda: isinstance(scene.events.get(timeout=PATIENCE_SECS), LeaseGranted))
        assert scene.lease_client.describe()["breaker"] == "closed"

    def test_what_is_granted_when_nobody_needs_it_any_more_goes_back(self, scene: OutsideScene) -> None:
        scene.process.behave(grant_secs=0.3)
        scene.lease_client.request(priority=1, session_ids=frozenset())
        time.sleep(0.1)
        scene.lease_client.withdraw()
        time.sleep(0.4)
        until(lambda: scene.process.holder() == [])
        assert_quiet(scene)

    def test_a_release_that_did_not_arrive_is_sent_again(
        self, scene: OutsideScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inference.gpu.lease.release_queue.RELEASE_RETRY_SECS", 0.05)
        release_in_vain(scene)
        time.sleep(0.1)
        scene.process.behave()
        until(lambda: scene.process.holder() == [])

    def test_one_that_has_not_asked_yet_was_not_refused(
        self, scene: OutsideScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request for the GPU waits for the release before it; /warmup takes a refusal as final."""
        monkeypatch.setattr("inference.gpu.lease.release_queue.RELEASE_RETRY_SECS", 0.3)
        release_in_vain(scene)
        until(lambda: scene.lease_client.describe()["state"] == "idle")
        scene.process.behave()
        scene.lease_client.request(priority=1, session_ids=frozenset())
        states: list[str] = []

        def is_held() -> bool:
            states.append(scene.lease_client.describe()["state"])
            return states[-1] == "held"

        until(is_held)
        assert set(states) <= {"idle", "waiting", "held"}

    def test_a_generation_once_found_is_remembered(self, scene: OutsideScene) -> None:
        before = len(scene.process.behave()["asked"])
        for _ in range(2):
            scene.lease_client.release(granted(scene), {})
            until(lambda: scene.n_held() == 0)
        requests = [
            (call["method"], call["path"].rsplit("/gemma-")[0]) for call in scene.process.behave()["asked"][before:]
        ]
        acquires = [path for method, path in requests if path in ("/gpu/acquire", "/gemma/request")]
        expected = {"v2": ["/gpu/acquire"] * 2, "v1": ["/gpu/acquire", "/gemma/request", "/gemma/request"]}
        assert acquires == expected[scene.coordinator.kind]


def _next(heard: PubSub) -> dict[str, Any]:
    message = heard.get_message(timeout=PATIENCE_SECS)
    assert message is not None
    data: dict[str, Any] = json.loads(message["data"])
    return data


def test_a_service_token_is_sent_when_there_is_a_key() -> None:
    process = CoordinatorProcess("v2", JWT_SECRET="s" * 32)
    try:
        without = OutsideCoordinator(process.url, acquire_secs=1.0, mint=lambda: None)
        with pytest.raises(CoordinatorFault, match="401"):
            without.renew("s1")
        with_token = OutsideCoordinator(process.url, acquire_secs=1.0, mint=lambda: "a.b")
        assert with_token.renew("s1") == "the coordinator knows nothing of our lease"
    finally:
        process.stop()


def test_one_that_is_not_there_is_a_fault() -> None:
    coordinator = OutsideCoordinator("http://127.0.0.1:9", acquire_secs=1.0, mint=lambda: None)
    with pytest.raises(CoordinatorFault, match="cannot be reached"):
        coordinator.acquire(session_id="s1", priority=1, metadata={})


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (200, b"<html>", "not JSON"),
        (200, b"[]", "not a JSON object"),
        (200, b'{"success": true, "session_id": "other"}', "another session"),
        (401, b"{}", "status 401"),
    ],
)
def test_garbage_grants_nothing(status: int, body: bytes, what: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
    coordinator = OutsideCoordinator("http://there", acquire_secs=1.0, mint=lambda: None, transport=transport)
    with pytest.raises(CoordinatorFault, match=what):
        coordinator.acquire(session_id="s1", priority=1, metadata={})


def test_waiting_grows_up_to_its_limit_and_differs() -> None:
    backoff = Backoff(first_secs=1.0, longest_secs=4.0, factor=2.0)
    assert 0.75 <= backoff.secs(1) <= 1.25
    assert 3.0 <= backoff.secs(9) <= 5.0
    assert len({backoff.secs(2) for _ in range(10)}) > 1
