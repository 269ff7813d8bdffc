"""The contract of every lease client. A test subclasses ``LeaseClientContract`` and brings a scene."""

import queue
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import pytest

from inference.gpu.lease.port import (
    Lease,
    LeaseClient,
    LeaseEvent,
    LeaseGranted,
    LeaseLost,
    LeaseRecalled,
    LeaseRefused,
)

Event = TypeVar("Event", bound=LeaseEvent)
PATIENCE_SECS = 5.0
QUIET_SECS = 0.2


class Scene(Protocol):
    """A lease_client and the world behind it."""

    events: "queue.SimpleQueue[LeaseEvent]"

    @property
    def lease_client(self) -> LeaseClient: ...

    def refuse(self, reason: str | None) -> None:
        """From now on nothing is granted, or things are again."""

    def recall(self) -> None: ...

    def take_away(self) -> None: ...

    def n_held(self) -> int:
        """Return the number of leases that the coordinator has on record for us."""


def next_event(scene: Scene, kind: type[Event]) -> Event:
    event = scene.events.get(timeout=PATIENCE_SECS)
    assert isinstance(event, kind), event
    return event


def granted(scene: Scene) -> Lease:
    scene.lease_client.request(priority=1, session_ids=frozenset({"talk"}))
    return next_event(scene, LeaseGranted).lease


def assert_quiet(scene: Scene) -> None:
    with pytest.raises(queue.Empty):
        pytest.fail(f"not expected: {scene.events.get(timeout=QUIET_SECS)}")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


class LeaseClientContract:
    @pytest.fixture
    def scene(self) -> Scene:
        raise NotImplementedError("the subclass brings one")

    def test_grants_what_is_wanted_once(self, scene: Scene) -> None:
        lease = granted(scene)
        assert lease.session_id
        scene.lease_client.request(priority=1, session_ids=frozenset({"talk", "other"}))
        assert_quiet(scene)
        assert scene.n_held() == 1

    def test_the_next_grant_is_another_lease(self, scene: Scene) -> None:
        first = granted(scene)
        scene.lease_client.release(first, {"n_served": 2})
        until(lambda: scene.n_held() == 0)
        second = granted(scene)
        assert second.session_id != first.session_id
        assert second.granted_at >= first.granted_at

    def test_wanting_alone_brings_nothing_after_a_release(self, scene: Scene) -> None:
        scene.lease_client.release(granted(scene), {})
        until(lambda: scene.n_held() == 0)
        assert_quiet(scene)

    def test_a_second_release_does_no_harm_to_the_next_lease(self, scene: Scene) -> None:
        first = granted(scene)
        scene.lease_client.release(first, {})
        until(lambda: scene.n_held() == 0)
        granted(scene)
        scene.lease_client.release(first, {})
        assert_quiet(scene)
        assert scene.n_held() == 1

    def test_a_refusal_says_why_and_is_tried_again(self, scene: Scene) -> None:
        scene.refuse("busy elsewhere")
        scene.lease_client.request(priority=2, session_ids=frozenset())
        refused = next_event(scene, LeaseRefused)
        assert refused.reason
        assert refused.retry_in_secs > 0
        scene.refuse(None)
        while not isinstance(event := scene.events.get(timeout=PATIENCE_SECS), LeaseGranted):
            assert isinstance(event, LeaseRefused)
        assert scene.n_held() == 1

    def test_what_nobody_needs_is_not_tried_again(self, scene: Scene) -> None:
        scene.refuse("busy elsewhere")
        scene.lease_client.request(priority=1, session_ids=frozenset())
        next_event(scene, LeaseRefused)
        scene.lease_client.withdraw()
        scene.refuse(None)
        time.sleep(QUIET_SECS)
        while not scene.events.empty():  # a refusal that was on its way
            assert isinstance(scene.events.get(), LeaseRefused)
        assert scene.n_held() == 0

    def test_the_other_tenant_wants_it_back(self, scene: Scene) -> None:
        lease = granted(scene)
        scene.recall()
        wanted = next_event(scene, LeaseRecalled)
        assert wanted.lease == lease
        assert wanted.reason
        scene.lease_client.release(lease, {})
        until(lambda: scene.n_held() == 0)

    def test_a_lost_lease_is_told(self, scene: Scene) -> None:
        lease = granted(scene)
        scene.take_away()
        lost = next_event(scene, LeaseLost)
        assert lost.lease == lease
        assert lost.reason
        scene.lease_client.release(lease, {})
        again = granted(scene)
        assert again.session_id != lease.session_id

    def test_the_end_gives_back_what_is_held(self, scene: Scene) -> None:
        granted(scene)
        scene.lease_client.end(PATIENCE_SECS)
        assert scene.n_held() == 0

    def test_it_describes_itself_without_addresses(self, scene: Scene) -> None:
        idle = scene.lease_client.describe()["state"]
        granted(scene)
        description = scene.lease_client.describe()
        assert description["state"] != idle
        assert {"coordinator", "state", "detail"} <= set(description)
        assert "://" not in str(description)
