"""Our coordinator pauses the neighbour's residents, in every form in which they answer."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from django.db import connections

from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, AcquisitionRefused, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.pause_replies import PauseReplies
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels
from inference.gpu.sdk.client import TenantClient
from inference.gpu.sdk.tenant import GpuTenant
from tests.neighbours.coordinator import Wire
from tests.neighbours.pause_manager import PauseManager

pytestmark = pytest.mark.django_db(transaction=True)
Managers = Callable[..., PauseManager]


def acquire(wire: Wire, *, pause_secs: float = 3.0, freed_secs: float = 6.0) -> Verdict:
    config = CoordinatorConfig(pause_secs=pause_secs, freed_secs=freed_secs)
    waiter = Waiter("gemma-service", "ours", 1)
    acquisition = Acquisition(wire, config, waiter=waiter, timeout_secs=freed_secs + 1.0, renews=True)
    try:
        while (verdict := acquisition.step()) is None:
            time.sleep(acquisition.pause_secs)
    finally:
        connections.close_all()
    return verdict


class TestFreedOnTheOlderChannel:
    @pytest.mark.parametrize("channel_sets", [("v1",), ("v2",), ("v1", "v2")])
    @pytest.mark.parametrize("free_secs", [0.0, 0.5])
    def test_it_is_granted_once_the_memory_is_free(
        self, wire: Wire, pause_manager: Managers, channel_sets: tuple[str, ...], free_secs: float
    ) -> None:
        manager = pause_manager(channel_sets=channel_sets, free_secs=free_secs)
        verdict = acquire(wire)
        assert isinstance(verdict, AcquisitionGranted), verdict
        assert not manager.is_on_card
        assert verdict.waited_secs >= free_secs

    def test_two_processes_of_it_have_both_to_leave(self, wire: Wire, pause_manager: Managers) -> None:
        quick, slow = pause_manager(), pause_manager(free_secs=1.0)
        verdict = acquire(wire)
        assert isinstance(verdict, AcquisitionGranted), verdict
        assert not (quick.is_on_card)
        assert not (slow.is_on_card)

    def test_one_that_loses_messages_is_waited_for(self, wire: Wire, pause_manager: Managers) -> None:
        pause_manager()
        pause_manager().is_deaf = True
        assert isinstance(acquire(wire, pause_secs=0.5, freed_secs=1.0), AcquisitionRefused)

    @pytest.mark.parametrize("order", ["old first", "new first"])
    def test_listeners_of_one_set_each_have_both_to_leave(
        self, wire: Wire, pause_manager: Managers, order: str
    ) -> None:
        """The older channel belongs to the transcription service: its message is no other program's."""
        old = pause_manager(channel_sets=("v1",), free_secs=0.0 if order == "old first" else 0.8)
        new = pause_manager(channel_sets=("v2",), free_secs=0.8 if order == "old first" else 0.0, service="comfy")
        verdict = acquire(wire)
        assert isinstance(verdict, AcquisitionGranted), verdict
        assert not (old.is_on_card)
        assert not (new.is_on_card)


class TestProcessesOfOneName:
    @pytest.fixture
    def tenants(self, wire: Wire) -> Iterator[Callable[..., list[GpuTenant]]]:
        with ExitStack() as stack:

            def begin(*pause_secs: float) -> list[GpuTenant]:
                made = []
                for secs in pause_secs:
                    client = TenantClient("http://127.0.0.1:9", "whisper")
                    pause = partial(time.sleep, secs)
                    tenant = GpuTenant("whisper", wire, client, pause, lambda: None, resident=True)
                    made.append(stack.enter_context(tenant))
                deadline = time.monotonic() + 10.0
                while not all(tenant.is_allowed for tenant in made):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                return made

            yield begin

    @pytest.mark.parametrize("pause_secs", [(0.0, 0.0), (0.0, 1.0), (0.5, 0.2, 0.0)])
    def test_each_has_to_leave_and_then_it_is_granted(
        self, wire: Wire, tenants: Callable[..., list[GpuTenant]], pause_secs: tuple[float, ...]
    ) -> None:
        made = tenants(*pause_secs)
        verdict = acquire(wire)
        assert isinstance(verdict, AcquisitionGranted), verdict
        assert not any(tenant.is_allowed for tenant in made)
        assert verdict.waited_secs >= max(pause_secs)


class TestCounting:
    def test_a_late_end_of_an_earlier_pause_is_none_of_ours(self) -> None:
        replies = PauseReplies("ours")
        replies.add(channels.FREED, {"status": "freed"})
        replies.add(channels.FREED, {"status": "freed", "session_id": "earlier"})
        fields = {"ack_type": "paused", "service": "transcription", "session_id": "earlier"}
        replies.add("gpu:ack:transcription", fields)
        assert (replies.n_old_freed, replies.n_new_freed) == (0, 0)

    def test_one_that_answers_twice_counts_once(self) -> None:
        replies = PauseReplies("ours")
        fields = {"ack_type": "paused", "service": "whisper", "session_id": "ours"}
        ack = fields | {"metadata": {"instance": "a"}}
        offloading = fields | {"metadata": {"instance": "a", "offloading": True}}
        for message in (offloading, offloading, ack, ack):
            replies.add("gpu:ack:whisper", message)
        assert (replies.n_new_paused, replies.n_new_freed) == (1, 1)

    def test_an_unnamed_end_of_another_service_is_not_taken_for_it(self) -> None:
        replies = PauseReplies("ours")
        fields = {"ack_type": "paused", "service": "comfy", "session_id": "ours", "metadata": {"offloading": True}}
        replies.add("gpu:ack:comfy", fields)
        replies.add(channels.PAUSED, {"status": "paused"})
        replies.add(channels.FREED, {"status": "freed"})
        assert (replies.n_old_freed, replies.n_new_freed) == (1, 0)
