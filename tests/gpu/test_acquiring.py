"""The built-in coordinator grants one lease at a time, and only when the GPU's memory is free."""

import time
from collections.abc import Callable

import pytest

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import Acquisition, AcquisitionGranted, AcquisitionRefused, Verdict
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.gpu.coordinator.wait_queue import Waiter
from inference.gpu.protocol import channels
from inference.models.gpu import GpuLedger, LedgerState
from tests.gpu.tenants import Transcription, Wire

pytestmark = [pytest.mark.databases, pytest.mark.django_db]

MakeResident = Callable[..., Transcription]
QUICK = CoordinatorConfig(ttl_secs=0.3, pause_secs=0.2, freed_secs=0.5, max_hold_secs=0.2, resident_secs=1.0)


def asking(
    wire: Wire,
    session_id: str = "s1",
    *,
    requester: str = "gemma-service",
    priority: int = 1,
    timeout_secs: float = 5.0,
    renews: bool = True,
) -> Acquisition:
    waiter = Waiter(requester, session_id, priority)
    return Acquisition(wire, QUICK, waiter=waiter, timeout_secs=timeout_secs, renews=renews)


def verdict_of(acquisition: Acquisition, *, while_waiting: Callable[[], None] = lambda: None) -> Verdict:
    deadline = time.monotonic() + 10
    while (verdict := acquisition.step()) is None:
        assert time.monotonic() < deadline, "no verdict"
        while_waiting()
        time.sleep(0.005)
    return verdict


def granted(wire: Wire, session_id: str = "s1", **options: object) -> int:
    verdict = verdict_of(asking(wire, session_id, **options))  # type: ignore[arg-type]
    assert isinstance(verdict, AcquisitionGranted), verdict
    return verdict.epoch


def refusal(acquisition: Acquisition) -> str:
    verdict = verdict_of(acquisition)
    assert isinstance(verdict, AcquisitionRefused), verdict
    return verdict.reason


def test_with_nobody_there_the_card_is_granted_at_once(wire: Wire) -> None:
    began = time.monotonic()
    assert granted(wire) == 1
    assert time.monotonic() - began < 1
    seen = api.status(wire)
    assert (seen.state, seen.owner, seen.session_id) == ("gemma", "gemma-service", "s1")
    assert wire.get("gpu_state") == b"gemma"
    assert wire.get("gpu_owner") == b"gemma-service"


@pytest.mark.parametrize("generation", ["old", "new"])
def test_the_transcription_service_pauses_leaves_and_is_resumed(
    wire: Wire, transcription: MakeResident, generation: str
) -> None:
    resident = transcription(old=generation == "old", new=generation == "new", frees_after_secs=0.1)
    verdict = verdict_of(asking(wire))
    assert isinstance(verdict, AcquisitionGranted)
    assert verdict.waited_secs >= 0.1
    assert api.release(wire, session_id="s1") is not None
    resident.until_heard("resume")
    assert (resident.n_heard("pause"), resident.n_heard("resume")) == (1, 1)
    assert wire.get("gpu_state") == b"transcription"
    assert GpuLedger.objects.current().is_free


def test_both_generations_have_to_leave(wire: Wire, transcription: MakeResident) -> None:
    transcription()
    late = transcription(old=False, new=True, frees_after_secs=None)
    assert "did not answer" in refusal(asking(wire))
    late.frees_after_secs = 0.0
    assert granted(wire, "s2") == 2


def test_who_never_answers_keeps_the_card(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription(answers=False)
    assert "did not answer within 0.2 s" in refusal(asking(wire))
    resident.until_heard("resume")
    assert GpuLedger.objects.current().is_free


def test_who_never_leaves_keeps_the_card(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription(frees_after_secs=None)
    assert "did not free the GPU" in refusal(asking(wire))
    resident.until_heard("resume")


def test_who_cannot_leave_says_so(wire: Wire, transcription: MakeResident) -> None:
    transcription(old=False, new=True, error="out of memory")
    assert "could not leave" in refusal(asking(wire))


def test_words_from_before_the_request_do_not_count(wire: Wire, transcription: MakeResident) -> None:
    """Late replies to an earlier pause: both messages are there, but older than this acquisition."""
    resident = transcription(answers=False)

    def late() -> None:
        resident.say_old("transcription_paused", age_secs=30)
        resident.say_old("vram_freed", age_secs=30)

    verdict = verdict_of(asking(wire), while_waiting=late)
    assert isinstance(verdict, AcquisitionRefused), verdict


def test_a_freed_that_no_word_of_leaving_came_before_does_not_count(wire: Wire, transcription: MakeResident) -> None:
    """The end of an earlier offload, written just now, while the service has not even seen this pause."""
    resident = transcription(answers=False)
    verdict = verdict_of(asking(wire), while_waiting=lambda: resident.say_old("vram_freed"))
    assert isinstance(verdict, AcquisitionRefused), verdict


def test_a_service_that_was_here_a_moment_ago_is_waited_for(wire: Wire, transcription: MakeResident) -> None:
    first = transcription()
    granted(wire)
    api.release(wire, session_id="s1")
    first.leave()
    assert "cannot be reached" in refusal(asking(wire, "s2"))
    acquisition = asking(wire, "s3")
    acquisition.step()
    acquisition.step()
    back = transcription()
    assert isinstance(verdict_of(acquisition), AcquisitionGranted)
    assert back.n_heard("pause") == 1
    api.release(wire, session_id="s3")
    back.leave()
    time.sleep(QUICK.resident_secs)  # by now it is gone for good
    granted(wire, "s4")


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_service_that_redis_has_forgotten_is_waited_for(
    wire: Wire, transcription: MakeResident, comes_back: bool
) -> None:
    watcher = LeaseWatcher(QUICK, clock=time.monotonic)
    first = transcription()
    watcher.once(wire)
    first.leave()
    wire.flushall()
    acquisition = asking(wire)
    assert [acquisition.step() for _ in range(5)] == [None] * 5
    if comes_back:
        second = transcription()
        assert isinstance(verdict_of(acquisition), AcquisitionGranted)
        assert second.n_heard("pause") == 1
    else:
        assert "was here a moment ago" in refusal(acquisition)
        time.sleep(QUICK.resident_secs)
        granted(wire, "s2")


def test_a_service_that_said_goodbye_is_not_waited_for(wire: Wire, transcription: MakeResident) -> None:
    watcher = LeaseWatcher(QUICK, clock=time.monotonic)
    resident = transcription()
    watcher.once(wire)
    resident.leave()
    wire.delete(channels.RESIDENTS_SEEN)  # as the tenant library does at its end
    began = time.monotonic()
    granted(wire)
    assert time.monotonic() - began < QUICK.resident_secs


def test_a_second_one_waits_and_is_told_who_has_it(wire: Wire) -> None:
    granted(wire, "s1", renews=False)
    assert refusal(asking(wire, "s2", timeout_secs=0.2)) == "gemma-service holds the GPU"
    assert api.status(wire).waiting == []


def test_asked_again_by_the_same_session_the_answer_is_the_same(wire: Wire) -> None:
    assert granted(wire, "s1") == granted(wire, "s1") == 1


def test_the_line_goes_by_priority_then_by_age(wire: Wire) -> None:
    granted(wire, "holder", renews=False)
    late_but_urgent, batch, urgent = (
        asking(wire, name, priority=priority) for name, priority in (("c", 1), ("a", 2), ("b", 1))
    )
    for acquisition in (batch, urgent, late_but_urgent):  # each takes its place at its first step
        acquisition.step()
    order = [waiter.session_id for waiter in api.status(wire).waiting]
    assert order[-1] == "a"
    assert set(order[:2]) == {"b", "c"}
    api.release(wire, session_id="holder")
    first, second = (urgent, late_but_urgent) if order[0] == "b" else (late_but_urgent, urgent)
    assert batch.step() is None
    assert second.step() is None
    assert isinstance(verdict_of(first), AcquisitionGranted)


def test_between_two_who_wait_the_residents_stay_away(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription()
    granted(wire, "s1")
    second = asking(wire, "s2")
    assert second.step() is None
    api.release(wire, session_id="s1")
    assert isinstance(verdict_of(second), AcquisitionGranted)
    api.release(wire, session_id="s2")
    resident.until_heard("resume")
    assert (resident.n_heard("pause"), resident.n_heard("resume")) == (1, 1)


def test_who_has_gone_keeps_no_place(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.gpu.coordinator.wait_queue.ALIVE_MS", 50)
    granted(wire, "s1", renews=False)
    asking(wire, "gone").step()
    second = asking(wire, "s2", priority=2)
    second.step()
    api.release(wire, session_id="s1")
    assert isinstance(verdict_of(second), AcquisitionGranted)


def test_cancelled_in_the_line_or_half_way_nothing_stays(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription(answers=False)
    acquisition = asking(wire)
    acquisition.step()
    assert GpuLedger.objects.current().state == LedgerState.PAUSING
    acquisition.cancel()
    resident.until_heard("resume")
    assert GpuLedger.objects.current().is_free
    assert api.status(wire).waiting == []


def test_the_holder_is_asked_to_leave_for_somebody_more_urgent(wire: Wire) -> None:
    granted(wire, "batch", priority=2, renews=False)
    heard = wire.pubsub()
    heard.psubscribe("gpu:comman[d]")
    urgent = asking(wire, "urgent", requester="ml-service", priority=1)
    urgent.step()
    urgent.step()
    messages = [heard.get_message(timeout=0.2) for _ in range(3)]
    assert any(
        m and b'"command":"pause","session_id":"batch"' in m["data"]
        for m in messages
        if m and m["type"] != "psubscribe"
    )
    heard.close()
    # Its word that the memory is free is as good as a release.
    wire.publish("gpu:ack:gemma-service", '{"ack_type":"paused","service":"other","session_id":"batch"}')
    urgent.step()
    assert api.status(wire).session_id == "batch"
    wire.publish("gpu:ack:gemma-service", '{"ack_type":"paused","service":"gemma-service","session_id":"batch"}')
    assert isinstance(verdict_of(urgent), AcquisitionGranted)
    assert api.status(wire).owner == "ml-service"


def test_an_equal_is_asked_to_leave_only_after_its_time(wire: Wire) -> None:
    granted(wire, "s1", renews=False)
    heard = wire.pubsub()
    heard.psubscribe("gpu:comman[d]")
    assert heard.get_message(timeout=1) is not None
    equal = asking(wire, "s2")
    equal.step()
    assert heard.get_message(timeout=0.02) is None
    time.sleep(QUICK.max_hold_secs)
    equal.step()
    assert heard.get_message(timeout=1) is not None
    equal.cancel()
    heard.close()
