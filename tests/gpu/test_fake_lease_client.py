"""The fake lease_client obeys the contract of the real one."""

import queue
from collections.abc import Iterator

import pytest

from inference.gpu.lease.fake import FakeLeaseClient
from inference.gpu.lease.port import LeaseEvent, LeaseGranted, LeaseRefused
from tests.gpu.lease_client_contract import LeaseClientContract, Scene, assert_quiet, next_event


class FakeScene:
    def __init__(self, grant_after_secs: float | None = 0.0) -> None:
        self.events: queue.SimpleQueue[LeaseEvent] = queue.SimpleQueue()
        self.lease_client = FakeLeaseClient(self.events.put, grant_after_secs=grant_after_secs, retry_secs=0.05)

    def refuse(self, reason: str | None) -> None:
        self.lease_client.refusing = reason

    def recall(self) -> None:
        self.lease_client.recall()

    def take_away(self) -> None:
        self.lease_client.lose()

    def n_held(self) -> int:
        return int(self.lease_client.lease is not None)


class TestFakeKeeper(LeaseClientContract):
    @pytest.fixture
    def scene(self) -> Iterator[Scene]:
        scene = FakeScene()
        scene.lease_client.begin()
        yield scene
        scene.lease_client.end(1.0)


def test_a_refusal_is_told_in_the_words_given() -> None:
    scene = FakeScene(grant_after_secs=None)
    scene.refuse("busy elsewhere")
    scene.lease_client.request(priority=1, session_ids=frozenset())
    assert scene.lease_client.grant() is None
    assert next_event(scene, LeaseRefused).reason == "busy elsewhere"
    scene.lease_client.end(1.0)


def test_by_hand_nothing_is_granted_before_it_is_told_to() -> None:
    scene = FakeScene(grant_after_secs=None)
    scene.lease_client.request(priority=1, session_ids=frozenset())
    assert_quiet(scene)
    lease = scene.lease_client.grant()
    assert next_event(scene, LeaseGranted).lease == lease
    assert scene.lease_client.grant() is None
