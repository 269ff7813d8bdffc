"""Beside an outside coordinator: no other session loses the GPU through us, no resident remains paused."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from django.db import connection, connections
from django.db.models.functions import Now
from pytest_django import Settings

from inference.gpu.lease.client import CoordinatorLeaseClient, LeaseClientOptions
from inference.gpu.lease.listener import publish_freed
from inference.gpu.lease.port import Lease, LeaseEvent, LeaseGranted, LeaseLost, LeaseRefused
from inference.gpu.lease.reaper import SessionReaper
from inference.gpu.lease.request import Backoff
from inference.gpu.records.outside_sessions import OutsideSessionStore
from inference.gpu.transports.outside_protocol import OutsideProtocol
from inference.gpu.transports.port import CoordinatorFault
from inference.gpu.transports.remote import OutsideCoordinator
from inference.models import OutsideSession
from inference.runtime.circuit_breaker import CircuitBreaker
from tests.live_stack import PROJECT
from tests.neighbours.coordinator import NeighbourCoordinator, Wire
from tests.neighbours.pause_manager import PauseManager

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_SECS = 15.0
Managers = Callable[..., PauseManager]


class OurSide:
    """A lease client beside the neighbour's coordinator, with records and reaper as the service has them."""

    def __init__(self, wire: Wire, coordinator: NeighbourCoordinator, *, acquire_secs: float = 3.0) -> None:
        self.events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
        self.store = OutsideSessionStore()
        outside = partial(OutsideCoordinator, coordinator.url, acquire_secs=acquire_secs, mint=lambda: "a.b")
        options = LeaseClientOptions(
            backoff=Backoff(first_secs=0.2, longest_secs=0.4),
            breaker=lambda: CircuitBreaker(max_failures=100, pause_secs=0.5),
        )
        self.client = CoordinatorLeaseClient(
            outside(records=self.store), self.events.put, partial(publish_freed, wire), options
        )
        self.reaper_store = OutsideSessionStore()
        self.reaper = SessionReaper(outside(records=self.reaper_store), self.reaper_store)
        self.client.begin()

    def next_event(self, kind: type[LeaseEvent]) -> LeaseEvent:
        event = self.events.get(timeout=PATIENCE_SECS)
        assert isinstance(event, kind), event
        return event

    def lease(self) -> Lease:
        self.client.request(priority=1, session_ids=frozenset())
        event = self.next_event(LeaseGranted)
        assert isinstance(event, LeaseGranted)
        return event.lease

    def end(self) -> None:
        self.client.end(PATIENCE_SECS)
        self.store.close()
        self.reaper_store.close()
        connections.close_all()


@pytest.fixture
def ours(wire: Wire, coordinator: NeighbourCoordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[OurSide]:
    monkeypatch.setattr(OutsideCoordinator, "renew_secs", 0.1)
    side = OurSide(wire, coordinator)
    yield side
    coordinator.token_status = 0
    side.end()


def until(condition: Callable[[], object], within_secs: float = PATIENCE_SECS) -> None:
    deadline = time.monotonic() + within_secs
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def no_records() -> bool:
    return not OutsideSession.objects.exists()


class TestOnlyWhatIsOurs:
    """The neighbour's release ignores the session id: each of ours that is not due ends another's lease."""

    def test_after_another_session_was_seen_nothing_is_released(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        manager = pause_manager()
        lease = ours.lease()
        coordinator.grant_to("theirs")
        ours.next_event(LeaseLost)
        ours.client.release(lease, {})
        until(no_records)
        assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)
        assert not manager.is_on_card  # the other owner's lease lasts

    def test_nor_when_it_took_the_gpu_between_two_looks_at_the_state(
        self, wire: Wire, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        pause_manager()
        side = OurSide(wire, coordinator)
        try:
            lease = side.lease()
            coordinator.grant_to("theirs")  # seen by no renewal: those are a second apart
            side.client.release(lease, {})
            until(no_records)
            assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)
        finally:
            side.end()

    def test_nor_when_the_other_session_has_ended_meanwhile(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        pause_manager()
        lease = ours.lease()
        coordinator.grant_to("theirs")
        ours.next_event(LeaseLost)
        coordinator.session, coordinator.state = "", "transcription"
        ours.client.release(lease, {})
        until(no_records)
        assert coordinator.n_calls("release") == 0

    @pytest.mark.parametrize("status", [400, 401, 403, 422, 429])
    def test_an_answered_error_of_the_caller_is_not_in_doubt(
        self, ours: OurSide, coordinator: NeighbourCoordinator, status: int
    ) -> None:
        coordinator.grant_to("theirs")
        coordinator.token_status = status
        ours.client.request(priority=1, session_ids=frozenset())
        ours.next_event(LeaseRefused)
        assert str(status) in ours.client.describe()["fault"]
        ours.client.withdraw()
        until(no_records)
        coordinator.token_status = 0
        assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)

    @pytest.mark.parametrize("refusal_status", [200, 409, 503])
    def test_a_refusal_because_another_has_it_releases_nothing(
        self, ours: OurSide, coordinator: NeighbourCoordinator, refusal_status: int
    ) -> None:
        coordinator.grant_to("theirs")
        coordinator.refusal_status = refusal_status
        ours.client.request(priority=1, session_ids=frozenset())
        ours.next_event(LeaseRefused)
        ours.client.withdraw()
        until(no_records)
        assert (coordinator.session, coordinator.n_calls("release")) == ("theirs", 0)

    def test_nothing_is_asked_for_that_could_not_be_recorded(
        self, ours: OurSide, coordinator: NeighbourCoordinator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ours.store, "_folder", PROJECT / "manage.py")  # no folder: the lock cannot be held
        ours.client.request(priority=1, session_ids=frozenset())
        refused = ours.next_event(LeaseRefused)
        assert isinstance(refused, LeaseRefused)
        assert "recorded" in refused.reason
        assert coordinator.n_calls("POST") == 0

    def test_after_a_loss_the_next_request_rests(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        pause_manager()
        lease = ours.lease()
        n_calls = coordinator.n_calls("acquire") + coordinator.n_calls("request")
        coordinator.grant_to("theirs")
        ours.next_event(LeaseLost)
        lost_at = time.monotonic()
        ours.client.release(lease, {})
        ours.client.request(priority=1, session_ids=frozenset())
        until(lambda: coordinator.n_calls("acquire") + coordinator.n_calls("request") > n_calls)
        assert time.monotonic() - lost_at >= 0.29  # three quarters of the longest backoff


class TestNobodyRemainsPaused:
    def test_a_refusal_after_a_slow_offload(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        coordinator.freed_secs = 0.3
        manager = pause_manager(free_secs=0.8)
        ours.client.request(priority=1, session_ids=frozenset())
        ours.next_event(LeaseRefused)
        ours.client.withdraw()
        until(lambda: manager.n_freed)
        manager.wait_until(on_card=True)
        until(no_records)

    def test_a_refusal_that_leaves_the_state_pausing(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        coordinator.freed_secs, coordinator.remains_pausing = 0.3, True
        manager = pause_manager(free_secs=0.6)
        ours.client.request(priority=1, session_ids=frozenset())
        ours.next_event(LeaseRefused)
        ours.client.withdraw()
        until(lambda: manager.n_freed)
        manager.wait_until(on_card=True)

    def test_a_coordinator_away_for_longer_than_the_tries_used_to_last(
        self,
        ours: OurSide,
        coordinator: NeighbourCoordinator,
        pause_manager: Managers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("inference.gpu.lease.release_queue.RELEASE_RETRY_SECS", 0.01)
        monkeypatch.setattr("inference.gpu.lease.release_queue.LONGEST_RETRY_SECS", 0.05)
        manager = pause_manager()
        lease = ours.lease()
        coordinator.stop()
        ours.client.release(lease, {})
        time.sleep(3.0)  # 30 tries are over after 1.3 s
        # A request made meanwhile is refused with the reason, rather than left without an answer.
        ours.client.request(priority=1, session_ids=frozenset())
        refused = ours.next_event(LeaseRefused)
        assert isinstance(refused, LeaseRefused)
        assert "reached" in refused.reason
        ours.client.withdraw()
        coordinator.start()
        manager.wait_until(on_card=True)
        until(no_records)

    def test_the_coordinator_lost_its_ledger(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        manager = pause_manager()
        lease = ours.lease()
        coordinator.session, coordinator.state = "", "transcription"  # restarted, and nobody resumed
        ours.next_event(LeaseLost)
        ours.client.release(lease, {})
        manager.wait_until(on_card=True)

    @pytest.mark.parametrize("seen_by", ["lock", "beat"])
    def test_a_process_that_died_while_it_held(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers, seen_by: str
    ) -> None:
        manager = pause_manager()
        ours.lease()
        ours.reaper.run_once()
        assert coordinator.n_calls("release") == 0  # its process runs
        if seen_by == "beat":
            OutsideSession.objects.update(owner="another-machine:1")
            now = time.monotonic()
            ours.reaper_store._clock = lambda: now
            ours.reaper.run_once()
            assert coordinator.n_calls("release") == 0  # its beat is new
            ours.reaper_store._clock = lambda: now + 151
        ours.store.close()
        ours.reaper.run_once()
        manager.wait_until(on_card=True)
        assert no_records()

    def test_one_that_died_while_it_asked_and_is_granted_late(
        self, wire: Wire, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        """The release finds the acquisition under way; the grant comes to a dead session."""
        manager = pause_manager()
        store = OutsideSessionStore()
        store.add("dead")
        store.close()
        side = OurSide(wire, coordinator, acquire_secs=0.5)
        try:
            side.reaper.run_once()
            coordinator.session, coordinator.state = "dead", "gemma"
            manager.is_on_card = False
            side.reaper.run_once()
            manager.wait_until(on_card=True)
            assert coordinator.session == ""
            assert no_records()
        finally:
            side.end()

    def test_an_orphan_ends_no_lease_of_another_process(
        self, ours: OurSide, coordinator: NeighbourCoordinator, pause_manager: Managers
    ) -> None:
        manager = pause_manager()
        store = OutsideSessionStore()
        store.add("dead")
        store.close()
        lease = ours.lease()
        for _ in range(3):
            ours.reaper.run_once()
        assert (coordinator.session, coordinator.n_calls("release")) == (lease.session_id, 0)
        assert not manager.is_on_card

    @pytest.mark.parametrize(("secs", "n_orphans"), [(0.3, 1), (1.0, 1), (0.3, 3)])
    def test_a_release_on_its_way_ends_no_later_grant(
        self,
        ours: OurSide,
        coordinator: NeighbourCoordinator,
        pause_manager: Managers,
        monkeypatch: pytest.MonkeyPatch,
        secs: float,
        n_orphans: int,
    ) -> None:
        """A slow coordinator carries out the release of an orphan some time after it was sent."""
        pause_manager()
        store, is_sent = OutsideSessionStore(), threading.Event()
        for number in range(n_orphans):
            store.add(f"dead {number}")
        store.close()
        release = OutsideProtocol.release

        def arrive_late(protocol: OutsideProtocol, *arguments: Any) -> None:  # noqa: ANN401  those of release
            is_sent.set()
            time.sleep(secs)
            release(protocol, *arguments)

        monkeypatch.setattr(OutsideProtocol, "release", arrive_late)

        def reap() -> None:
            ours.reaper.run_once()
            connections.close_all()

        reaping = threading.Thread(target=reap)
        reaping.start()
        assert is_sent.wait(PATIENCE_SECS)
        ours.client.request(priority=1, session_ids=frozenset())
        refused = ours.next_event(LeaseRefused)
        assert refused == LeaseRefused("the release of an earlier session is under way", ANY)
        event: LeaseEvent = refused
        while isinstance(event, LeaseRefused):
            event = ours.events.get(timeout=PATIENCE_SECS)
        reaping.join()
        assert isinstance(event, LeaseGranted)
        time.sleep(0.5)  # a few renewals
        assert coordinator.session == event.lease.session_id
        assert ours.events.empty()

    def test_nor_does_the_late_release_of_another_worker(
        self,
        wire: Wire,
        ours: OurSide,
        coordinator: NeighbourCoordinator,
        pause_manager: Managers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Two workers of one installation: the first ends its lease, the second requests one meanwhile."""
        pause_manager()
        other, is_sent = OurSide(wire, coordinator), threading.Event()
        release = OutsideProtocol.release

        def arrive_late(protocol: OutsideProtocol, *arguments: Any) -> None:  # noqa: ANN401  those of release
            is_sent.set()
            time.sleep(0.5)
            release(protocol, *arguments)

        try:
            lease = other.lease()
            monkeypatch.setattr(OutsideProtocol, "release", arrive_late)
            other.client.release(lease, {})
            assert is_sent.wait(PATIENCE_SECS)
            ours.client.request(priority=1, session_ids=frozenset())
            event: LeaseEvent = ours.next_event(LeaseRefused)
            while isinstance(event, LeaseRefused):
                event = ours.events.get(timeout=PATIENCE_SECS)
            assert isinstance(event, LeaseGranted)
            time.sleep(0.5)  # a few renewals
            assert coordinator.session == event.lease.session_id
            assert ours.events.empty()
        finally:
            other.end()

    @pytest.mark.parametrize(("in_doubt", "remains"), [(True, True), (False, False)])
    def test_a_release_that_may_still_arrive_stays_marked_for_a_while(
        self, ours: OurSide, monkeypatch: pytest.MonkeyPatch, *, in_doubt: bool, remains: bool
    ) -> None:
        def fail(*_: object) -> None:
            raise CoordinatorFault("no answer", in_doubt=in_doubt)

        monkeypatch.setattr(OutsideProtocol, "release", fail)
        store = OutsideSessionStore()
        store.add("dead")
        store.close()
        ours.reaper.run_once()
        assert ours.store.is_release_under_way() is remains
        OutsideSession.objects.update(releasing_at=Now() - timedelta(seconds=12))
        assert not ours.store.is_release_under_way()

    def test_orphans_are_taken_once(self, ours: OurSide) -> None:
        store = OutsideSessionStore()
        store.add("dead")
        store.close()
        second = OutsideSessionStore()
        assert ours.reaper_store.take_orphans() == {"dead": False}
        assert second.take_orphans() == {}
        ours.reaper_store.close()  # and its heir is found in turn
        assert second.take_orphans() == {"dead": False}
        second.remove("dead")
        second.close()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the processes share a file")
@pytest.mark.parametrize("coordinator", ["v2"], indirect=True)
def test_a_worker_killed_while_it_holds(
    coordinator: NeighbourCoordinator, pause_manager: Managers, settings: Settings, tmp_path: Path
) -> None:
    """The next process of the installation releases the session, as after a full restart."""
    manager = pause_manager()
    environment = {
        "GPU_COORDINATOR_URL": coordinator.url,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "REDIS_URL": settings.REDIS_URL,
        "GEMMA_SHM_DIR": str(tmp_path),
        "GEMMA_GPU": "simulated",
        "GPU_BREAKER_FAILURES": "1000",
    }

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.holder_process"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=os.environ | environment,
        )

    first = start()
    assert first.stdout is not None
    assert "LeaseGranted" in first.stdout.readline()
    dead_session = coordinator.session
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert coordinator.session == dead_session
    second = start()
    try:
        assert second.stdout is not None
        until(lambda: coordinator.session not in (dead_session, "") and coordinator.state == "gemma", 60.0)
        assert coordinator.n_calls("release") >= 1
        # Their coordinator takes a late report of an earlier pause for that of this one.
        manager.wait_until(on_card=False)
        assert (coordinator.state, coordinator.session != dead_session) == ("gemma", True)
    finally:
        second.kill()
        second.wait()
        for process in (first, second):
            if process.stdout is not None:
                process.stdout.close()
