"""The fake keeper obeys the contract of the real one."""

import queue
from collections.abc import Iterator

import pytest

from inference.gpu.lease.fake import FakeKeeper
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseRefused
from tests.gpu.lease_client_contract import KeeperContract, Scene, assert_quiet, next_event


class FakeScene:
    def __init__(self, grant_after_secs: float | None = 0.0) -> None:
        self.events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
        self.keeper = FakeKeeper(self.events.put, grant_after_secs=grant_after_secs, retry_secs=0.05)

    def refuse(self, reason: str | None) -> None:
        self.keeper.refusing = reason

    def want_back(self) -> None:
        self.keeper.want_back()

    def take_away(self) -> None:
        self.keeper.lose()

    def n_held(self) -> int:
        return int(self.keeper.lease is not None)


class TestFakeKeeper(KeeperContract):
    @pytest.fixture
    def scene(self) -> Iterator[Scene]:
        scene = FakeScene()
        scene.keeper.begin()
        yield scene
        scene.keeper.end(1.0)


def test_a_refusal_is_told_in_the_words_given() -> None:
    scene = FakeScene(grant_after_secs=None)
    scene.refuse("busy elsewhere")
    scene.keeper.want(priority=1, session_ids=frozenset())
    assert scene.keeper.grant() is None
    assert next_event(scene, LeaseRefused).reason == "busy elsewhere"
    scene.keeper.end(1.0)


def test_by_hand_nothing_is_granted_before_it_is_told_to() -> None:
    scene = FakeScene(grant_after_secs=None)
    scene.keeper.want(priority=1, session_ids=frozenset())
    assert_quiet(scene)
    lease = scene.keeper.grant()
    assert next_event(scene, LeaseGranted).lease == lease
    assert scene.keeper.grant() is None
