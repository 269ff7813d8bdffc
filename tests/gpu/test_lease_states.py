"""The parts of the lease client, each by itself: its states, the request, the renewal, the queue of releases."""

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from inference.gpu.lease.held import LeaseRenewal
from inference.gpu.lease.port import Lease
from inference.gpu.lease.release_queue import LONGEST_RETRY_SECS, RELEASE_RETRY_SECS, RELEASE_TRIES, ReleaseQueue
from inference.gpu.lease.request import Backoff, LeaseRequest
from inference.gpu.lease.state import LEASE_TRANSITIONS, REQUESTED, WITH_LEASE, LeaseState
from inference.gpu.transports.port import CoordinatorFault, Denial, OnWait
from inference.runtime.state_machine import IllegalTransition, StateMachine

# Written down once more, so that a change of the table has to be meant.
DRAWN = {
    ("idle", "pending"),
    ("pending", "idle"),
    ("pending", "acquiring"),
    ("acquiring", "held"),
    ("acquiring", "pending"),
    ("acquiring", "withdrawing"),
    ("withdrawing", "acquiring"),
    ("withdrawing", "idle"),
    ("held", "lost"),
    ("held", "idle"),
    ("lost", "idle"),
}
LEASE = Lease("s1", 1, 0.0, 0.0, "stub")


class StubCoordinator:
    """``fault``: raised by every call while it is set; ``holder``: the answer of a renewal."""

    kind = "stub"
    renew_secs = 1.0

    def __init__(self, *, lost_after_secs: float | None = 3.0) -> None:
        self.lost_after_secs = lost_after_secs
        self.fault: str | None = None
        self.holder: str | None = None
        self.released: list[str] = []

    def acquire(
        self, *, session_id: str, priority: int, metadata: Mapping[str, Any], on_wait: OnWait = lambda reason: None
    ) -> Denial:
        return Denial("never granted")

    def withdraw(self, session_id: str) -> None:
        raise AssertionError("nothing is withdrawn here")

    def renew(self, session_id: str) -> str | None:
        self._fail()
        return self.holder

    def release(self, session_id: str, result: Mapping[str, Any]) -> None:
        self._fail()
        self.released.append(session_id)

    def close(self) -> None:
        raise AssertionError("it is not closed here")

    def _fail(self) -> None:
        if self.fault is not None:
            raise CoordinatorFault(self.fault)


@pytest.mark.parametrize(("source", "target"), list(product(LeaseState, LeaseState)))
def test_a_drawn_transition_is_legal_and_every_other_one_is_refused(source: LeaseState, target: LeaseState) -> None:
    machine = StateMachine(source, LEASE_TRANSITIONS)
    if (source.value, target.value) in DRAWN:
        machine.move(target, 7.0)
        assert (machine.now, machine.since) == (target, 7.0)
        return
    with pytest.raises(IllegalTransition, match=f"from {source} to .*, got {target}"):
        machine.move(target, 7.0)
    assert machine.now is source


def test_every_state_can_be_left_and_reached_and_a_lease_comes_by_a_call_alone() -> None:
    assert set(LEASE_TRANSITIONS) == set(LeaseState)
    assert {target for targets in LEASE_TRANSITIONS.values() for target in targets} == set(LeaseState)
    assert not set(WITH_LEASE) & set(REQUESTED)
    entered_from = {
        s for s, targets in LEASE_TRANSITIONS.items() if s not in WITH_LEASE and set(targets) & set(WITH_LEASE)
    }
    assert entered_from == {LeaseState.ACQUIRING}


# ---- the request ----


@pytest.fixture
def request_() -> LeaseRequest:
    return LeaseRequest(Backoff(first_secs=1.0, longest_secs=8.0, factor=2.0))


def test_refusals_in_a_row_wait_longer_and_a_grant_begins_anew(request_: LeaseRequest) -> None:
    waits = [request_.refuse("busy", now=100.0) for _ in range(8)]
    assert 0.75 <= waits[0] <= 1.25
    assert 6.0 <= waits[-1] <= 10.0
    assert (request_.reason, request_.attempt_at) == ("busy", 100.0 + waits[-1])
    request_.granted()
    assert request_.reason == ""
    assert request_.refuse("busy", now=100.0) <= 1.25


def test_a_pause_of_the_breaker_counts_as_no_refusal_of_the_coordinator(request_: LeaseRequest) -> None:
    assert request_.refuse("left alone", now=10.0, retry_in_secs=30.0) == 30.0
    assert request_.attempt_at == 40.0
    assert request_.refuse("busy", now=40.0) <= 1.25


def test_a_withdrawal_shortens_the_wait_of_the_next_request(request_: LeaseRequest) -> None:
    for _ in range(8):
        request_.refuse("busy", now=100.0)
    request_.withdraw(100.0)
    assert (request_.attempt_at, request_.reason) == (101.0, "")
    request_.withdraw(300.0)
    assert request_.attempt_at == 101.0, "it never lengthens the wait"


# ---- the renewal ----


def test_a_confirmed_lease_is_renewed_at_the_interval() -> None:
    coordinator = StubCoordinator()
    renewal = LeaseRenewal(coordinator)
    held_lease = renewal.begin(LEASE, confirmed_at=0.0)
    assert held_lease.renew_at == 1.0
    assert renewal.renew(held_lease) is None
    assert held_lease.renew_at - held_lease.renewed_at == pytest.approx(1.0, abs=0.1)


def test_a_lease_of_another_session_is_lost_at_once() -> None:
    coordinator = StubCoordinator()
    coordinator.holder = "another session has the GPU"
    renewal = LeaseRenewal(coordinator)
    assert renewal.renew(renewal.begin(LEASE, confirmed_at=0.0)) == "another session has the GPU"


@pytest.mark.parametrize(
    ("lost_after_secs", "silent_secs", "is_lost"), [(3.0, 1.0, False), (3.0, 3.5, True), (None, 3600.0, False)]
)
def test_a_fault_loses_the_lease_after_the_coordinators_patience(
    lost_after_secs: float | None, silent_secs: float, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = StubCoordinator(lost_after_secs=lost_after_secs)
    coordinator.fault = "away"
    renewal = LeaseRenewal(coordinator)
    held_lease = renewal.begin(LEASE, confirmed_at=50.0)
    monkeypatch.setattr("inference.gpu.lease.held.time.monotonic", lambda: 50.0 + silent_secs)
    assert renewal.renew(held_lease) == ("it could not be renewed: away" if is_lost else None)
    assert held_lease.renewed_at == 50.0


@pytest.mark.parametrize(("lost_after_secs", "deadline"), [(3.0, 53.5), (20.0, 70.5), (None, math.inf)])
def test_the_gpu_is_left_after_the_worker_would_have_and_before_another_grant(
    lost_after_secs: float | None, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = StubCoordinator(lost_after_secs=lost_after_secs)
    renewal = LeaseRenewal(coordinator)
    held_lease = renewal.begin(LEASE, confirmed_at=50.0)
    assert renewal.deadline(held_lease) == deadline
    monkeypatch.setattr("inference.gpu.lease.held.time.monotonic", lambda: 51.0)
    coordinator.fault = "away"
    renewal.renew(held_lease)
    assert renewal.deadline(held_lease) == deadline, "a renewal that failed extends nothing"
    coordinator.fault = None
    renewal.renew(held_lease)
    assert renewal.deadline(held_lease) == deadline + 1.0


# ---- releases ----


def test_a_release_is_sent_when_due_and_again_after_a_fault() -> None:
    coordinator, now = StubCoordinator(), 10.0
    releases = ReleaseQueue(coordinator, clock=lambda: now)
    releases.add("s1", {}, 12.0)
    releases.send_due(11.0)
    assert (coordinator.released, releases.due_at) == ([], 12.0)
    coordinator.fault, now = "away", 12.0
    releases.send_due(12.0)
    assert releases.due_at == 12.0 + RELEASE_RETRY_SECS
    coordinator.fault = None
    releases.send_due(12.0 + RELEASE_RETRY_SECS)
    assert coordinator.released == ["s1"]
    assert not releases.is_blocking
    assert releases.due_at is None


def test_a_release_of_a_lease_that_expires_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    coordinator = StubCoordinator()
    coordinator.fault = "away"
    releases = ReleaseQueue(coordinator, clock=lambda: 0.0)
    releases.add("s1", {}, 0.0)
    for _ in range(RELEASE_TRIES - 1):
        releases.send_due(LONGEST_RETRY_SECS)
    assert releases.is_blocking
    releases.send_due(LONGEST_RETRY_SECS)
    assert releases.due_at is None
    assert "session=s1" in caplog.text


def test_one_of_a_lease_that_never_expires_is_not() -> None:
    coordinator = StubCoordinator(lost_after_secs=None)
    coordinator.fault = "away"
    releases = ReleaseQueue(coordinator, clock=lambda: 0.0)
    releases.add("s1", {}, 0.0)
    for _ in range(1000):
        releases.send_due(LONGEST_RETRY_SECS)
    assert not releases.is_blocking  # requests are answered by the coordinator's own failure
    coordinator.fault = None
    releases.send_due(LONGEST_RETRY_SECS)
    assert coordinator.released == ["s1"]


def test_the_rest_is_sent_once_whether_due_or_not() -> None:
    coordinator = StubCoordinator()
    releases = ReleaseQueue(coordinator)
    releases.add("s1", {}, float("inf"))
    releases.add("s2", {}, 0.0)
    releases.send_rest()
    assert coordinator.released == ["s1", "s2"]
    assert not releases.is_blocking
    assert releases.due_at is None
