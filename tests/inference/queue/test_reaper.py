"""The reaper on a clock moved by hand: silent workers, lost messages, deadlines, unbuilt prompts, deleted rows."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from inference.errors import StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.monitoring.liveness import LivenessLock
from inference.queue.cleanup import LOG_END_SECS, LOGS_INTERVAL_SECS
from inference.queue.reaper import REAP_SECS, Reaper
from inference.queue.repeated_notifications import FOLLOW_UP_SECS, PREPARE_SECS
from inference.queue.silent_claims import MAX_ATTEMPTS
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry, TokenEntry
from inference.token_stream.redis_log import Append, append
from tests.clock import Clock
from tests.inference.making import preparing, queued, tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

Notifications = list[tuple[str, str]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reaper(clock: Clock) -> Reaper:
    return Reaper(lambda: 2, clock=clock)


def watch(reaper: Reaper, clock: Clock, secs: float) -> None:
    """Run a round every second, as the worker's thread does, until ``secs`` have passed."""
    end = clock.now + secs
    reaper.run_once()
    while clock.now < end:
        clock.now = min(end, clock.now + REAP_SECS)
        reaper.run_once()


def running(*, attempt: int = 1, worker: str = "w") -> Generation:
    queued()
    row = Generation.objects.claim_next(worker=worker)
    assert row is not None
    Generation.objects.filter(pk=row.pk).update(attempt=attempt)
    return row


def grow_older(row: Generation, secs: float) -> None:
    then = timezone.now() - timedelta(seconds=secs)
    Generation.objects.filter(pk=row.pk).update(created_at=then, queued_at=then, finished_at=then)


# ---- silent owners ----


def test_a_heartbeat_that_stands_still_is_taken_over(
    reaper: Reaper, clock: Clock, notifications: Notifications
) -> None:
    row = running()
    notifications.clear()
    watch(reaper, clock, settings.CLAIM_TTL_SECS - 0.1)
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    watch(reaper, clock, 0.2)
    row.refresh_from_db()
    assert (row.status, row.claim_epoch, row.attempt) == (Status.QUEUED, 2, 1)
    assert ("inference.generate", str(row.pk)) in notifications


def test_long_but_live_is_never_taken_over(reaper: Reaper, clock: Clock) -> None:
    row = running()
    for _ in range(30):
        watch(reaper, clock, settings.CLAIM_TTL_SECS * 0.9)
        Generation.objects.advance_heartbeats(worker="w", generation_ids=[row.pk])
        reaper.run_once()
    row.refresh_from_db()
    assert (row.status, row.claim_epoch) == (Status.RUNNING, 1)


def test_only_silence_observed_by_this_process_counts(clock: Clock) -> None:
    """A new reaper does not know for how long the counter has stood still."""
    row = running()
    for _ in range(5):
        clock.now += settings.CLAIM_TTL_SECS * 10
        Reaper(lambda: 0, clock=clock).run_once()
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_time_in_which_the_reaper_could_not_look_does_not_count(reaper: Reaper, clock: Clock) -> None:
    """The database was away, or the whole machine slept: heartbeats had nowhere to go either."""
    row = running()
    watch(reaper, clock, 2)
    clock.now += settings.CLAIM_TTL_SECS * 3
    reaper.run_once()
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    watch(reaper, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert row.status == Status.QUEUED


@pytest.mark.parametrize("secs", [None, settings.CLAIM_TTL_SECS], ids=["refused", "late"])
def test_time_in_which_nobody_could_write_does_not_count(reaper: Reaper, clock: Clock, secs: float | None) -> None:
    """A locked database lets the reaper read, and the heartbeat not write; then both want to write at once."""
    row = running()
    watch(reaper, clock, settings.CLAIM_TTL_SECS / 2)

    def locked(execute: Callable[..., object], sql: str, *rest: object) -> object:
        if sql.startswith("UPDATE"):
            if secs is None:
                raise OperationalError("database is locked")
            clock.now += secs
        return execute(sql, *rest)

    with connection.execute_wrapper(locked):
        for _ in range(3):
            with suppress(OperationalError):
                watch(reaper, clock, settings.CLAIM_TTL_SECS / 2)
    watch(reaper, clock, 2 * settings.HEARTBEAT_SECS - REAP_SECS)
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    watch(reaper, clock, 2 * REAP_SECS)
    row.refresh_from_db()
    assert row.status == Status.QUEUED


@pytest.mark.parametrize("secs", [1.0, 1.5, 3.0])
def test_a_lock_that_ends_as_the_claim_would_leaves_time_for_a_heartbeat(
    reaper: Reaper, clock: Clock, secs: float
) -> None:
    row = running()
    watch(reaper, clock, settings.CLAIM_TTL_SECS - 0.1)

    def locked(execute: Callable[..., object], sql: str, *rest: object) -> object:
        clock.now += secs if sql.startswith("UPDATE") else 0.0
        return execute(sql, *rest)

    with connection.execute_wrapper(locked):
        reaper.run_once()
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    Generation.objects.advance_heartbeats(worker="w", generation_ids=[row.pk])
    watch(reaper, clock, settings.CLAIM_TTL_SECS - 0.1)
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_the_reaper_takes_nothing_from_its_own_worker(clock: Clock) -> None:
    """A locked database lets the reaper read, and the heartbeat not write."""
    mine, abandoned = running(), running()
    reaper = Reaper(lambda: 0, holds=lambda pk, epoch: (pk, epoch) == (mine.pk, mine.claim_epoch), clock=clock)
    watch(reaper, clock, settings.CLAIM_TTL_SECS)
    statuses = dict(Generation.objects.values_list("pk", "status"))
    assert statuses == {mine.pk: Status.RUNNING, abandoned.pk: Status.QUEUED}


def test_a_worker_that_died_on_this_machine_is_taken_over_at_once(reaper: Reaper, notifications: Notifications) -> None:
    names = [f"{socket.gethostname()}:1:alive", f"{socket.gethostname()}:2:dead", "elsewhere:3:cc"]
    alive, dead = LivenessLock(names[0]), LivenessLock(names[1])
    alive.acquire()
    dead.acquire()
    rows = {name: running(worker=name) for name in names}
    reaper.run_once()
    assert set(Generation.objects.values_list("status", flat=True)) == {Status.RUNNING}
    assert dead._descriptor is not None
    os.close(dead._descriptor)  # as the kernel does it
    reaper.run_once()
    statuses = dict(Generation.objects.values_list("pk", "status"))
    assert [name for name, row in rows.items() if statuses[row.pk] == Status.QUEUED] == [names[1]]
    assert ("inference.generate", str(rows[names[1]].pk)) in notifications
    alive.release()


def test_a_new_claim_of_the_row_starts_the_time_anew(reaper: Reaper, clock: Clock) -> None:
    row = running()
    watch(reaper, clock, settings.CLAIM_TTL_SECS - 1)
    Generation.objects.filter(pk=row.pk).update(claim_epoch=7)
    watch(reaper, clock, settings.CLAIM_TTL_SECS - 1)
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_too_many_attempts_end_a_row_with_its_tokens(reaper: Reaper, clock: Clock, store: "redis.Redis[bytes]") -> None:
    row = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])
    watch(reaper, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert (row.status, row.error_code, row.text) == (Status.FAILED, "too_many_attempts", "abc")
    assert store.xlen(log_key(row.pk)) == 4


def test_without_redis_the_end_waits_for_the_tokens(
    reaper: Reaper, clock: Clock, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(redis_log, "fence", away)
        watch(reaper, clock, settings.CLAIM_TTL_SECS + 5)
        row.refresh_from_db()
        assert row.status == Status.RUNNING
    reaper.run_once()
    row.refresh_from_db()
    assert (row.status, row.text) == (Status.FAILED, "abc")


def test_a_cancel_outlives_the_worker_it_was_meant_for(reaper: Reaper, clock: Clock) -> None:
    row = running()
    Generation.objects.update(cancel_requested=True)
    watch(reaper, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert (row.status, row.finish_reason) == (Status.INTERRUPTED, "cancelled")


def test_rows_of_another_model_or_version_are_ended_all_the_same(
    reaper: Reaper, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    """Tokens outside of the vocabulary and unreadable parameters do not stop the reaper."""
    foreign = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(foreign.pk, foreign.claim_epoch, [TokenEntry(index=1, token=2**30, text="said")])])
    strange = running(attempt=MAX_ATTEMPTS)
    Generation.objects.filter(pk=strange.pk).update(params={"max_tokens": "many"})
    watch(reaper, clock, settings.CLAIM_TTL_SECS)
    foreign.refresh_from_db()
    strange.refresh_from_db()
    assert (foreign.status, foreign.text, foreign.output_ids) == (Status.FAILED, "said", [2**30])
    assert (strange.status, strange.error_code) == (Status.FAILED, "too_many_attempts")


# ---- notifications ----


def test_lost_messages_are_repeated_for_the_free_slots(reaper: Reaper, notifications: Notifications) -> None:
    rows = [queued(f"user:{number}", waited_secs=30 - number) for number in range(5)]
    notifications.clear()
    reaper.run_once()
    assert notifications == [("inference.generate", str(row.pk)) for row in rows[:2]]


def test_a_busy_worker_repeats_no_message(clock: Clock, notifications: Notifications) -> None:
    queued(waited_secs=30)
    notifications.clear()
    Reaper(lambda: 0, clock=clock).run_once()
    assert notifications == []


def test_a_newly_queued_row_is_left_to_its_own_message(reaper: Reaper, notifications: Notifications) -> None:
    queued()
    notifications.clear()
    reaper.run_once()
    assert notifications == []


def test_rows_queued_when_redis_was_wiped_are_notified(
    reaper: Reaper, notifications: Notifications, store: "redis.Redis[bytes]"
) -> None:
    row = queued(waited_secs=5)
    store.flushall()
    notifications.clear()
    reaper.run_once()
    assert notifications == [("inference.generate", str(row.pk))]


def test_the_preparation_of_a_stuck_row_is_repeated(reaper: Reaper, clock: Clock, notifications: Notifications) -> None:
    row = preparing(prepare_task="chat.prepare")
    reaper.run_once()
    assert notifications == []
    grow_older(row, PREPARE_SECS + 1)
    for _ in range(5):
        reaper.run_once()
    assert notifications == [("chat.prepare", str(row.pk))]
    clock.now += PREPARE_SECS
    reaper.run_once()
    assert len(notifications) == 2


def test_a_stuck_row_without_a_task_fails(reaper: Reaper) -> None:
    row = preparing(prepare_task="")
    grow_older(row, PREPARE_SECS + 1)
    reaper.run_once()
    row.refresh_from_db()
    assert (row.status, row.error_code) == (Status.FAILED, "not_prepared")


# ---- deadlines and forgetting ----


@pytest.mark.parametrize("make", [queued, preparing])
def test_a_row_that_waits_beyond_its_deadline_times_out(reaper: Reaper, make: object) -> None:
    late, early, endless = make(timeout_secs=1), make(timeout_secs=60), make(timeout_secs=None)  # type: ignore[operator]
    Generation.objects.filter(pk=late.pk).update(deadline_at=timezone.now() - timedelta(seconds=1))
    reaper.run_once()
    statuses = {row.pk: row.status for row in Generation.objects.all()}
    assert statuses[late.pk] == Status.INTERRUPTED
    assert statuses[early.pk] == statuses[endless.pk] == late.status
    late.refresh_from_db()
    assert late.error_code == "timeout"


def test_ephemeral_rows_are_deleted_after_the_time_of_their_readers(reaper: Reaper) -> None:
    old, young, kept, unfinished = queued(ephemeral=True), queued(ephemeral=True), queued(), queued(ephemeral=True)
    ended = [old.pk, young.pk, kept.pk]
    Generation.objects.filter(pk__in=ended).update(status=Status.COMPLETE, finished_at=timezone.now())
    for row in (old, kept, unfinished):
        grow_older(row, settings.TOKEN_LOG_TTL_SECS + 5)
    reaper.run_once()
    assert set(Generation.objects.values_list("pk", flat=True)) == {young.pk, kept.pk, unfinished.pk}


def test_the_log_of_an_ended_row_without_an_end_is_deleted(
    reaper: Reaper, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    """Its worker died between the two writes; a log that was ended stays for late readers."""
    logged = {name: running() for name in ("open", "ended", "running")}
    for name, row in logged.items():
        end = [EndEntry(index=2, status="complete")] if name == "ended" else []
        append(store, [Append(row.pk, row.claim_epoch, [*tokens("ab"), *end])])
        if name != "running":
            Generation.objects.filter(pk=row.pk).update(status=Status.COMPLETE, finished_at=timezone.now())
            grow_older(row, LOG_END_SECS + 1)
    clock.now += LOGS_INTERVAL_SECS
    reaper.run_once()
    assert [name for name, row in logged.items() if store.exists(log_key(row.pk))] == ["ended", "running"]


def test_logs_of_rows_that_ended_while_redis_was_away_are_removed_when_it_is_back(
    reaper: Reaper, clock: Clock, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    row = running()
    append(store, [Append(row.pk, row.claim_epoch, tokens("ab"))])
    Generation.objects.filter(pk=row.pk).update(status=Status.COMPLETE, finished_at=timezone.now())
    reaper.run_once()
    with monkeypatch.context() as patch:
        patch.setattr(redis_log, "without_end", away)
        for secs in (LOG_END_SECS + 1, LOGS_INTERVAL_SECS, LOGS_INTERVAL_SECS, LOGS_INTERVAL_SECS):
            clock.now += secs
            grow_older(row, clock.now - 1000)
            with suppress(StoreUnavailable):
                reaper.run_once()
    assert store.exists(log_key(row.pk))
    clock.now += LOGS_INTERVAL_SECS
    reaper.run_once()
    assert not store.exists(log_key(row.pk))


def test_thousands_of_queued_rows_do_not_slow_the_reaper(reaper: Reaper, notifications: Notifications) -> None:
    then = timezone.now() - timedelta(seconds=30)
    Generation.objects.bulk_create(
        [Generation(owner=f"u{number % 9}", queued_at=then, priority=Priority.BATCH) for number in range(5000)]
    )
    began = timezone.now()
    reaper.run_once()
    assert len(notifications) == 2
    assert (timezone.now() - began).total_seconds() < 5


# ---- follow-ups ----


def ended_with_follow_up(**columns: object) -> Generation:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(
        status=Status.COMPLETE, follow_up_task="chat.follow", finished_at=timezone.now(), **columns
    )
    return row


def test_a_follow_up_is_repeated_until_it_is_done(reaper: Reaper, clock: Clock, notifications: Notifications) -> None:
    row = ended_with_follow_up()
    message = ("chat.follow", str(row.pk))
    notifications.clear()
    reaper.run_once()
    assert message not in notifications  # the end itself has just sent it
    for expected in (1, 2):
        clock.now += FOLLOW_UP_SECS
        reaper.run_once()
        reaper.run_once()
        assert notifications.count(message) == expected
    assert Generation.objects.claim_follow_up(generation_id=row.pk)
    assert not Generation.objects.claim_follow_up(generation_id=row.pk)
    clock.now += FOLLOW_UP_SECS
    reaper.run_once()
    assert notifications.count(message) == 2


def test_nothing_follows_before_the_end(reaper: Reaper, clock: Clock, notifications: Notifications) -> None:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(follow_up_task="chat.follow")
    assert not Generation.objects.claim_follow_up(generation_id=row.pk)
    for _ in range(2):
        reaper.run_once()
        clock.now += FOLLOW_UP_SECS
    assert ("chat.follow", str(row.pk)) not in notifications


def test_a_row_is_not_deleted_before_its_follow_up(reaper: Reaper) -> None:
    row = ended_with_follow_up(ephemeral=True)
    grow_older(row, settings.TOKEN_LOG_TTL_SECS + 1)
    reaper.run_once()
    assert Generation.objects.claim_follow_up(generation_id=row.pk)
    reaper.run_once()
    assert not Generation.objects.filter(pk=row.pk).exists()
