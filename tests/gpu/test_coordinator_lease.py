"""Ends of a lease of the built-in coordinator: release, expiry, reset, and never by a session that lost it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis
from django.db import connections

from inference.gpu.coordinator import api
from inference.gpu.coordinator.acquiring import AcquisitionGranted
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.models.gpu import GpuLedger, LeaseRecord, LedgerState
from tests.gpu.tenants import Transcription, Wire
from tests.gpu.test_acquiring import QUICK, MakeResident, asking, granted, verdict_of

pytestmark = [pytest.mark.databases, pytest.mark.django_db]


def watch_until(wire: Wire, condition: Callable[[], bool], *, watch: LeaseWatcher | None = None) -> float:
    """Look again and again, as a process of ours does; how long it took."""
    watch = watch or LeaseWatcher(QUICK, clock=time.monotonic)
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 10, "it never came about"
        watch.once(wire)
        time.sleep(0.01)
    return time.monotonic() - began


def is_free() -> bool:
    return GpuLedger.objects.current().is_free


def test_a_dead_owner_loses_it_within_the_ttl_and_the_transcription_goes_on(
    wire: Wire, transcription: MakeResident
) -> None:
    resident = transcription()
    granted(wire)
    watch = LeaseWatcher(QUICK, clock=time.monotonic)
    watch.once(wire)  # another process has observed it
    assert watch_until(wire, is_free, watch=watch) < QUICK.ttl_secs + 0.3
    resident.until_heard("resume")
    assert api.renew(wire, QUICK, session_id="s1") is None


def test_a_renewed_lease_stays(wire: Wire) -> None:
    granted(wire)
    watch = LeaseWatcher(QUICK, clock=time.monotonic)
    for _ in range(8):
        assert api.renew(wire, QUICK, session_id="s1") == 1
        watch.once(wire)
        time.sleep(QUICK.ttl_secs / 4)
    assert api.status(wire).session_id == "s1"


@pytest.mark.parametrize("end", ["release", "expiry", "reset"])
def test_every_ended_lease_leaves_one_record(wire: Wire, end: str) -> None:
    granted(wire)
    if end == "release":
        api.release(wire, session_id="s1")
        api.release(wire, session_id="s1")
    elif end == "reset":
        api.reset(wire)
    watch_until(wire, is_free)
    record = LeaseRecord.objects.get()
    assert (record.lease_epoch, record.requester) == (1, asking(wire)._waiter.requester)
    assert timedelta() <= record.ended_at - record.acquired_at < timedelta(minutes=1)


def test_callers_of_the_old_protocols_need_not_renew(wire: Wire) -> None:
    granted(wire, "s1", renews=False)
    watch = LeaseWatcher(QUICK, clock=time.monotonic)
    deadline = time.monotonic() + 2 * QUICK.ttl_secs
    while time.monotonic() < deadline:
        watch.once(wire)
        time.sleep(0.02)
    assert api.status(wire).session_id == "s1"


def test_a_late_worker_touches_nobody_elses_lease(wire: Wire) -> None:
    granted(wire, "late")
    watch_until(wire, is_free)
    epoch = granted(wire, "next")
    assert api.renew(wire, QUICK, session_id="late") is None
    assert api.release(wire, session_id="late") is None
    seen = api.status(wire)
    assert (seen.session_id, seen.epoch, epoch) == ("next", 2, 2)


def test_the_epoch_survives_a_wipe_of_redis(wire: Wire) -> None:
    epochs = []
    for number in range(3):
        epochs.append(granted(wire, f"s{number}"))
        api.release(wire, session_id=f"s{number}")
        wire.flushall()
    assert epochs == [1, 2, 3]


def test_a_lease_survives_a_wipe_of_redis_and_nobody_else_gets_the_card(wire: Wire) -> None:
    granted(wire, "s1")
    watch = LeaseWatcher(QUICK, clock=time.monotonic)
    watch.once(wire)
    wire.flushall()
    other = asking(wire, "s2")
    assert other.step() is None
    watch.once(wire)
    assert api.renew(wire, QUICK, session_id="s1") == 1
    assert wire.get("gpu_owner") == b"gemma-service"  # an observer has restored the published state
    assert other.step() is None
    other.cancel()
    api.release(wire, session_id="s1")
    assert is_free()


def test_a_request_half_way_whose_process_died_ends_by_itself(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription(answers=False)
    asking(wire).step()  # and never again
    watch_until(wire, is_free)
    resident.until_heard("resume")


def test_residents_whom_nobody_told_are_told_by_whoever_watches(
    wire: Wire, transcription: MakeResident, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.gpu.coordinator.lease.RESUME_AGAIN_SECS", 0.1)
    resident = transcription()
    granted(wire)
    # A process that released the GPU and ended before it published that.
    assert GpuLedger.objects.move(GpuLedger.objects.current(), LedgerState.RESUMING)
    watch_until(wire, is_free)
    resident.until_heard("resume")


def test_residents_are_told_when_the_next_in_line_has_gone(
    wire: Wire, transcription: MakeResident, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.gpu.coordinator.wait_queue.ALIVE_MS", 100)
    resident = transcription()
    granted(wire)
    asking(wire, "s2").step()  # and never again
    api.release(wire, session_id="s1")
    assert resident.n_heard("resume") == 0
    watch_until(wire, lambda: resident.n_heard("resume") == 1)
    assert not GpuLedger.objects.current().is_emptied


def test_a_reset_by_hand_ends_whatever_there_is(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription()
    granted(wire)
    assert api.reset(wire) == 1
    resident.until_heard("resume")
    assert api.renew(wire, QUICK, session_id="s1") is None
    assert api.reset(wire) == 1
    assert granted(wire, "s2") == 2


def test_a_reset_half_way_grants_nothing(wire: Wire, transcription: MakeResident) -> None:
    resident = transcription(frees_after_secs=0.1)
    acquisition = asking(wire)
    acquisition.step()
    api.reset(wire)
    resident.until_heard("pause")
    assert not isinstance(verdict_of(acquisition), AcquisitionGranted)
    assert is_free()


@pytest.mark.django_db(transaction=True)
def test_five_contenders_have_it_one_after_the_other(wire: Wire, transcription: MakeResident) -> None:
    resident: Transcription = transcription()
    holders: list[str] = []
    most = [0]
    lock = threading.Lock()

    def contend(name: str) -> int:
        try:
            epochs = []
            for turn in range(3):
                verdict = verdict_of(asking(wire, f"{name}-{turn}", timeout_secs=30, renews=False))
                assert isinstance(verdict, AcquisitionGranted), verdict
                with lock:
                    holders.append(name)
                    most[0] = max(most[0], len(holders))
                time.sleep(0.01)
                with lock:
                    holders.remove(name)
                assert api.release(wire, session_id=f"{name}-{turn}") is not None
                epochs.append(verdict.epoch)
            assert epochs == sorted(epochs)
            return len(epochs)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as threads:
        assert sum(threads.map(contend, "abcde")) == 15
    assert most == [1]
    assert GpuLedger.objects.current().epoch == 15
    watch_until(wire, lambda: is_free() and not GpuLedger.objects.current().is_emptied)
    resident.until_heard("resume")


def test_two_who_saw_the_same_row_cannot_both_move_it() -> None:
    first, second = GpuLedger.objects.current(), GpuLedger.objects.current()
    assert GpuLedger.objects.move(first, LedgerState.PAUSING, epoch=first.epoch + 1)
    assert not GpuLedger.objects.move(second, LedgerState.PAUSING, epoch=second.epoch + 1)


def test_a_redis_that_is_away_refuses(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    acquisition = asking(wire)

    def away(*args: object, **options: object) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(wire, "zrange", away)
    verdict = verdict_of(acquisition)
    assert not isinstance(verdict, AcquisitionGranted)
    assert "cannot reach Redis" in verdict.reason
