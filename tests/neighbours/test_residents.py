"""Who counts as a resident, whose reply counts, and which resume is sent: the pauses of the built-in coordinator."""

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections

from inference.gpu.coordinator import broadcast, preemption, ttl
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, AcquisitionRefused, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.gpu.coordinator.silent_subscribers import Silence, SilentSubscribers
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.lease.client import CoordinatorLeaseClient
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseLost
from inference.gpu.protocol import presence
from inference.gpu.transports.port import Denial, Grant, OnWait
from inference.models.gpu import GpuLedger, LedgerQuerySet, LedgerState
from tests.neighbours.coordinator import Wire
from tests.neighbours.pause_manager import PauseManager

pytestmark = pytest.mark.django_db(transaction=True)
CONFIG = CoordinatorConfig(pause_secs=0.4, freed_secs=2.0, resident_secs=0.5, watcher_secs=0.8)
Managers = Callable[..., PauseManager]


def begin(wire: Wire, session_id: str = "ours", config: CoordinatorConfig = CONFIG) -> Acquisition:
    waiter = Waiter("gemma-service", session_id, 1)
    return Acquisition(wire, config, waiter=waiter, timeout_secs=10.0, renews=True)


def verdict_of(acquisition: Acquisition) -> Verdict:
    try:
        while (verdict := acquisition.step()) is None:
            time.sleep(acquisition.pause_secs)
    finally:
        connections.close_all()
    return verdict


def release(wire: Wire) -> None:
    row = GpuLedger.objects.current()
    assert preemption.resume(wire, epoch=row.epoch, session_id="", requester="x")
    GpuLedger.objects.update(state=LedgerState.FREE, is_emptied=False, session_id="", requester="")
    connections.close_all()


class TestWatchers:
    def test_a_subscriber_that_never_answers_holds_it_up_for_a_while_only(self, wire: Wire) -> None:
        with wire.pubsub() as watcher:
            watcher.subscribe("gpu:command")
            assert watcher.get_message(timeout=5.0) is not None
            for number in range(3):
                refused = verdict_of(begin(wire, f"s{number}"))
                assert isinstance(refused, AcquisitionRefused), refused
                assert "did not answer" in refused.reason
            assert isinstance(verdict_of(begin(wire, "s4")), AcquisitionGranted)

    def test_a_resident_beside_it_is_still_waited_for(self, wire: Wire, pause_manager: Managers) -> None:
        manager = pause_manager(channel_sets=("v2",))
        with wire.pubsub() as watcher:
            watcher.subscribe("gpu:command")
            assert watcher.get_message(timeout=5.0) is not None
            while not isinstance(verdict_of(begin(wire, f"s{time.monotonic()}")), AcquisitionGranted):
                manager.wait_until(on_card=True)
            release(wire)
            manager.wait_until(on_card=True)
            manager.free_secs = 0.5
            assert isinstance(verdict_of(begin(wire, "slow")), AcquisitionGranted)
            assert not manager.is_on_card
            release(wire)
            manager.is_deaf = True
            assert isinstance(verdict_of(begin(wire, "deaf")), AcquisitionRefused)

    def test_an_announced_one_never_counts_as_a_watcher(self, wire: Wire) -> None:
        with wire.pubsub() as silent:
            silent.subscribe("gpu:command", "transcription_pause")
            for _ in range(2):
                assert silent.get_message(timeout=5.0) is not None
            for number in range(5):
                presence.announce(wire, presence.Presence("whisper", "a1", is_resident=True))
                assert isinstance(verdict_of(begin(wire, f"s{number}")), AcquisitionRefused)

    def test_zero_means_that_every_subscriber_is_a_resident(self, wire: Wire) -> None:
        subscribers = SilentSubscribers(wire, "new", 0.0)
        for _ in range(10):
            subscribers.learn(1, 1)
        assert subscribers.count(1) == 0

    @pytest.mark.parametrize(
        ("pauses", "n_present", "n_watchers"),
        [
            ([(1, 1)] * 3, 1, 1),
            ([(1, 1)] * 2, 1, 0),  # too few
            ([(2, 1)] * 3, 2, 1),
            ([(2, 1)] * 3 + [(2, 2)], 2, 1),  # the other has answered before
            ([(1, 0)] + [(2, 2)] * 3, 2, 1),  # only the newcomer may be one
            ([(2, 2)] * 3 + [(2, 1)], 2, 1),  # one answers after all
            ([(2, 1)] * 3, 3, 1),  # a newcomer is a resident
            ([(2, 1)] * 3, 1, 0),  # it may be the watcher that has left
            ([(2, 1)] * 3 + [(1, 1)] * 3, 1, 1),  # it was not
        ],
    )
    def test_counting(self, pauses: list[tuple[int, int]], n_present: int, n_watchers: int) -> None:
        silence = Silence()
        for second, (n_unknown, n_silent) in enumerate(pauses):
            silence = silence.after(n_unknown, n_silent, 100.0 + second)
        assert silence.n_watchers(n_present, 102.0 + len(pauses), patience_secs=2.0) == n_watchers

    @pytest.mark.parametrize("damaged", ["", "[]", "[1", '{"a": 1}', "[1,2,3,4,5]", "null"])
    def test_a_damaged_entry_is_forgotten(self, wire: Wire, damaged: str) -> None:
        wire.hset("gpu:watchers", "new", damaged)
        assert SilentSubscribers(wire, "new", 1.0).count(1) == 0


class TestLateReplies:
    """Replies on the older channels name no pause: those to an earlier one come while the next one waits."""

    def test_a_backlog_of_an_earlier_pause_grants_nothing(self, wire: Wire, pause_manager: Managers) -> None:
        manager = pause_manager(channel_sets=("v1",), free_secs=2.3)
        assert isinstance(verdict_of(begin(wire, "s1")), AcquisitionRefused)
        manager.free_secs = 0.0
        second = begin(wire, "s2")  # sent before the first has ended, and after that its resume is obeyed
        verdict = verdict_of(second)
        assert isinstance(verdict, AcquisitionRefused) or not manager.is_on_card, verdict

    def test_a_program_of_ours_names_its_pause(self, wire: Wire) -> None:
        fields = {"status": "freed", "instance": "a", "timestamp": datetime.now(UTC).isoformat()}
        with wire.pubsub() as listener:
            listener.subscribe("transcription_pause")
            assert listener.get_message(timeout=5.0) is not None
            acquisition = begin(wire)
            while acquisition.step() is None and GpuLedger.objects.current().state != LedgerState.PAUSING:
                time.sleep(0.02)
            wire.publish("transcription_paused", json.dumps(fields | {"status": "paused", "session_id": "earlier"}))
            wire.publish("vram_freed", json.dumps(fields | {"session_id": "earlier"}))
            assert isinstance(verdict_of(acquisition), AcquisitionRefused)


class TestReconnecting:
    def test_one_of_two_that_is_missing_is_waited_for(self, wire: Wire, pause_manager: Managers) -> None:
        config = CoordinatorConfig(pause_secs=3.0, freed_secs=4.0, resident_secs=10.0)
        first, second = pause_manager(), pause_manager()
        preemption.note_residents(wire, config)
        second.close()  # its connection is gone, its model perhaps not
        acquisition = begin(wire, config=config)
        for _ in range(30):
            assert acquisition.step() is None
            time.sleep(0.02)
        third = pause_manager()
        assert isinstance(verdict_of(acquisition), AcquisitionGranted)
        assert [manager.is_on_card for manager in (first, third)] == [False, False]

    def test_a_busy_one_is_known_by_its_announcement(self, wire: Wire, pause_manager: Managers) -> None:
        pause_manager()
        presence.announce(wire, presence.Presence("whisper", "busy", is_resident=True))
        assert isinstance(verdict_of(begin(wire)), AcquisitionRefused)
        wire.delete("gpu:tenant:busy")
        assert isinstance(verdict_of(begin(wire, "s2")), AcquisitionGranted)

    def test_a_resume_that_was_missed_is_repeated(
        self, wire: Wire, pause_manager: Managers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inference.gpu.coordinator.lease.REPEAT_SECS", 0.2)
        manager = pause_manager()
        assert isinstance(verdict_of(begin(wire)), AcquisitionGranted)
        manager.is_deaf = True
        release(wire)
        time.sleep(0.2)
        assert not manager.is_on_card
        manager.is_deaf = False
        watcher = LeaseWatcher(CONFIG, clock=time.monotonic)
        for _ in range(20):
            watcher.once(wire)
            time.sleep(0.05)
        connections.close_all()
        assert manager.is_on_card


class TestDelayedMessages:
    """A process that was suspended sends the resume, or the state, of a lease that has ended meanwhile."""

    def test_a_resume_of_an_earlier_lease_is_not_sent(self, wire: Wire, pause_manager: Managers) -> None:
        manager = pause_manager()
        assert isinstance(verdict_of(begin(wire)), AcquisitionGranted)
        epoch = GpuLedger.objects.current().epoch
        assert not preemption.resume(wire, epoch=epoch - 1, session_id="", requester="x")
        time.sleep(0.2)
        assert not manager.is_on_card
        assert preemption.resume(wire, epoch=epoch, session_id="", requester="x")
        manager.wait_until(on_card=True)
        connections.close_all()

    def test_a_state_of_an_earlier_lease_is_not_published(self, wire: Wire) -> None:
        late = GpuLedger(epoch=3, state=LedgerState.FREE)
        broadcast.publish(wire, GpuLedger(epoch=4, state=LedgerState.HELD, requester="gemma-service"), CONFIG)
        broadcast.publish(wire, late)
        assert wire.get("gpu_state") == b"gemma"
        wire.flushall()
        broadcast.publish(wire, late)
        assert wire.get("gpu_state") == b"transcription"

    def test_a_card_that_the_next_in_the_queue_gets_without_a_pause_is_not_shown_as_free(
        self, wire: Wire, pause_manager: Managers
    ) -> None:
        manager = pause_manager()
        assert isinstance(verdict_of(begin(wire, "s1")), AcquisitionGranted)
        second = begin(wire, "s2")
        assert second.step() is None  # it waits
        row = GpuLedger.objects.current()
        ttl.end(wire, row.epoch)
        assert wire.get("gpu_state") == b"gemma"
        lease_watch = LeaseWatcher(CoordinatorConfig(ttl_secs=0.05), clock=time.monotonic)
        while GpuLedger.objects.current().state != LedgerState.FREE:
            lease_watch.check(wire, GpuLedger.objects.current())
            time.sleep(0.02)
        assert wire.get("gpu_state") == b"pausing"
        assert not manager.is_on_card
        assert isinstance(verdict_of(second), AcquisitionGranted)
        assert not manager.is_on_card


class TestSlowDatabase:
    """Each step of a grant may take longer than a lease lasts, and another process acts meanwhile."""

    def test_a_grant_that_took_longer_than_the_lease_is_none(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        config = CoordinatorConfig(ttl_secs=0.4)
        move = LedgerQuerySet.move

        def slow(self: LedgerQuerySet, expected: GpuLedger, to: LedgerState, **changes: object) -> bool:
            time.sleep(0.3 if to == LedgerState.HELD else 0.0)
            return move(self, expected, to, **changes)

        monkeypatch.setattr(LedgerQuerySet, "move", slow)
        verdict = verdict_of(begin(wire, config=config))
        assert isinstance(verdict, AcquisitionRefused), verdict
        assert GpuLedger.objects.current().state == LedgerState.FREE
        connections.close_all()

    def test_residents_that_were_resumed_since_the_row_was_read_are_paused_again(
        self, wire: Wire, pause_manager: Managers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manager = pause_manager()
        assert isinstance(verdict_of(begin(wire, "s1")), AcquisitionGranted)
        # Released for a request that has gone since: the GPU is free, and nothing was resumed yet.
        GpuLedger.objects.update(state=LedgerState.FREE, session_id="", requester="")
        stale = GpuLedger.objects.current()
        assert stale.is_emptied
        LeaseWatcher(CONFIG, clock=time.monotonic).once(wire)
        manager.wait_until(on_card=True)
        rows = [stale]
        current = LedgerQuerySet.current
        monkeypatch.setattr(LedgerQuerySet, "current", lambda self: rows.pop() if rows else current(self))
        assert isinstance(verdict_of(begin(wire, "s2")), AcquisitionGranted)
        assert not manager.is_on_card

    def test_a_blocked_renewal_does_not_keep_the_holder_on_the_card(self) -> None:
        """The renewal returns long after the lease has ended."""
        blocked = threading.Event()
        events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
        client = CoordinatorLeaseClient(BlockedCoordinator(blocked), events.put, lambda session_id, result: None)
        client.begin()
        client.request(priority=1, session_ids=frozenset())
        assert isinstance(events.get(timeout=5.0), LeaseGranted)
        began = time.monotonic()
        lost = events.get(timeout=5.0)
        assert isinstance(lost, LeaseLost)
        assert time.monotonic() - began < 2.0
        assert not blocked.is_set()
        blocked.set()
        client.release(lost.lease, {})
        client.end(5.0)
        assert events.empty()


class BlockedCoordinator:
    """Grants at once, and does not answer a renewal until it is told to."""

    kind = "builtin"
    renew_secs = 0.05
    lost_after_secs = 0.4

    def __init__(self, is_over: threading.Event) -> None:
        self._is_over = is_over

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Grant | Denial:
        return Grant(1, self.kind)

    def withdraw(self, session_id: str) -> None: ...

    def renew(self, session_id: str) -> str | None:
        assert self._is_over.wait(10.0)
        return None

    def release(self, session_id: str, result: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...
