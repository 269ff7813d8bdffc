"""The sweep, on a clock moved by hand: silent owners, lost rings, deadlines, unbuilt prompts, forgotten rows."""

import os
import socket
from contextlib import suppress
from datetime import timedelta

import pytest
import redis
from django.conf import settings
from django.utils import timezone

from inference.errors import StoreUnavailable
from inference.models import Generation, Priority, Status
from inference.monitoring.liveness import ProofOfLife
from inference.queue.reaper import (
    FOLLOW_UP_AGAIN_AFTER_SECS,
    LOG_END_SECS,
    LOGS_EVERY_SECS,
    MAX_ATTEMPTS,
    PREPARE_AGAIN_AFTER_SECS,
    SWEEP_SECS,
    Sweep,
)
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import End, Token
from inference.token_stream.redis_log import Append, append
from tests.clock import Clock
from tests.inference.making import preparing, queued, tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

Rings = list[tuple[str, str]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sweep(clock: Clock) -> Sweep:
    return Sweep(lambda: 2, clock=clock)


def watch(sweep: Sweep, clock: Clock, secs: float) -> None:
    """Look every second, as the worker's thread does, until ``secs`` have passed."""
    end = clock.now + secs
    sweep.once()
    while clock.now < end:
        clock.now = min(end, clock.now + SWEEP_SECS)
        sweep.once()


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


def test_a_heartbeat_that_stands_still_is_taken_over(sweep: Sweep, clock: Clock, rings: Rings) -> None:
    row = running()
    rings.clear()
    watch(sweep, clock, settings.CLAIM_TTL_SECS - 0.1)
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    watch(sweep, clock, 0.2)
    row.refresh_from_db()
    assert (row.status, row.claim_epoch, row.attempt) == (Status.QUEUED, 2, 1)
    assert ("inference.generate", str(row.pk)) in rings


def test_long_but_live_is_never_taken_over(sweep: Sweep, clock: Clock) -> None:
    row = running()
    for _ in range(30):
        watch(sweep, clock, settings.CLAIM_TTL_SECS * 0.9)
        Generation.objects.beat(worker="w", generation_ids=[row.pk])
        sweep.once()
    row.refresh_from_db()
    assert (row.status, row.claim_epoch) == (Status.RUNNING, 1)


def test_only_what_this_process_saw_standing_still_counts(clock: Clock) -> None:
    """A sweep that starts anew knows nothing of how long the counter has been where it is."""
    row = running()
    for _ in range(5):
        clock.now += settings.CLAIM_TTL_SECS * 10
        Sweep(lambda: 0, clock=clock).once()
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_time_in_which_the_sweep_could_not_look_counts_for_nobody(sweep: Sweep, clock: Clock) -> None:
    """The database was away, or the whole machine slept: heartbeats had nowhere to go either."""
    row = running()
    watch(sweep, clock, 2)
    clock.now += settings.CLAIM_TTL_SECS * 3
    sweep.once()
    row.refresh_from_db()
    assert row.status == Status.RUNNING
    watch(sweep, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert row.status == Status.QUEUED


def test_what_lives_in_this_worker_is_taken_from_it_by_nobody_in_it(clock: Clock) -> None:
    """A locked database lets its sweep look, and its heartbeat not in."""
    mine, abandoned = running(), running()
    sweep = Sweep(lambda: 0, holds=lambda pk, epoch: (pk, epoch) == (mine.pk, mine.claim_epoch), clock=clock)
    watch(sweep, clock, settings.CLAIM_TTL_SECS)
    statuses = dict(Generation.objects.values_list("pk", "status"))
    assert statuses == {mine.pk: Status.RUNNING, abandoned.pk: Status.QUEUED}


def test_a_worker_that_died_on_this_machine_is_not_waited_for(sweep: Sweep, rings: Rings) -> None:
    names = [f"{socket.gethostname()}:1:alive", f"{socket.gethostname()}:2:dead", "elsewhere:3:cc"]
    alive, dead = ProofOfLife(names[0]), ProofOfLife(names[1])
    alive.begin()
    dead.begin()
    rows = {name: running(worker=name) for name in names}
    sweep.once()
    assert set(Generation.objects.values_list("status", flat=True)) == {Status.RUNNING}
    assert dead._descriptor is not None
    os.close(dead._descriptor)  # as the kernel does it
    sweep.once()
    statuses = dict(Generation.objects.values_list("pk", "status"))
    assert [name for name, row in rows.items() if statuses[row.pk] == Status.QUEUED] == [names[1]]
    assert ("inference.generate", str(rows[names[1]].pk)) in rings
    alive.end()


def test_a_new_claim_of_the_row_starts_the_time_anew(sweep: Sweep, clock: Clock) -> None:
    row = running()
    watch(sweep, clock, settings.CLAIM_TTL_SECS - 1)
    Generation.objects.filter(pk=row.pk).update(claim_epoch=7)
    watch(sweep, clock, settings.CLAIM_TTL_SECS - 1)
    row.refresh_from_db()
    assert row.status == Status.RUNNING


def test_too_many_attempts_end_it_with_what_it_had_said(
    sweep: Sweep, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    row = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])
    watch(sweep, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert (row.status, row.error_code, row.text) == (Status.FAILED, "too_many_attempts", "abc")
    assert store.xlen(log_key(row.pk)) == 4


def test_without_redis_the_end_waits_for_what_it_had_said(
    sweep: Sweep, clock: Clock, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(redis_log, "fence", away)
        watch(sweep, clock, settings.CLAIM_TTL_SECS + 5)
        row.refresh_from_db()
        assert row.status == Status.RUNNING
    sweep.once()
    row.refresh_from_db()
    assert (row.status, row.text) == (Status.FAILED, "abc")


def test_a_cancel_outlives_the_worker_it_was_meant_for(sweep: Sweep, clock: Clock) -> None:
    row = running()
    Generation.objects.update(cancel_requested=True)
    watch(sweep, clock, settings.CLAIM_TTL_SECS)
    row.refresh_from_db()
    assert (row.status, row.finish_reason) == (Status.INTERRUPTED, "cancelled")


def test_rows_of_another_model_or_version_are_ended_all_the_same(
    sweep: Sweep, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    """Tokens that the vocabulary does not have, parameters that nobody understands: no reason to stop sweeping."""
    foreign = running(attempt=MAX_ATTEMPTS)
    append(store, [Append(foreign.pk, foreign.claim_epoch, [Token(index=1, token=2**30, text="said")])])
    strange = running(attempt=MAX_ATTEMPTS)
    Generation.objects.filter(pk=strange.pk).update(params={"max_tokens": "many"})
    watch(sweep, clock, settings.CLAIM_TTL_SECS)
    foreign.refresh_from_db()
    strange.refresh_from_db()
    assert (foreign.status, foreign.text, foreign.output_ids) == (Status.FAILED, "said", [2**30])
    assert (strange.status, strange.error_code) == (Status.FAILED, "too_many_attempts")


# ---- rings ----


def test_lost_rings_are_rung_again_for_the_free_slots(sweep: Sweep, rings: Rings) -> None:
    rows = [queued(f"user:{number}", waited_secs=30 - number) for number in range(5)]
    rings.clear()
    sweep.once()
    assert rings == [("inference.generate", str(row.pk)) for row in rows[:2]]


def test_a_busy_worker_rings_for_nobody(clock: Clock, rings: Rings) -> None:
    queued(waited_secs=30)
    rings.clear()
    Sweep(lambda: 0, clock=clock).once()
    assert rings == []


def test_what_was_queued_a_moment_ago_is_left_to_its_own_ring(sweep: Sweep, rings: Rings) -> None:
    queued()
    rings.clear()
    sweep.once()
    assert rings == []


def test_rows_queued_when_redis_was_wiped_are_rung(sweep: Sweep, rings: Rings, store: "redis.Redis[bytes]") -> None:
    row = queued(waited_secs=5)
    store.flushall()
    rings.clear()
    sweep.once()
    assert rings == [("inference.generate", str(row.pk))]


def test_an_unbuilt_prompt_is_asked_for_again_now_and_then(sweep: Sweep, clock: Clock, rings: Rings) -> None:
    row = preparing(prepare_task="chat.prepare")
    sweep.once()
    assert rings == []
    grow_older(row, PREPARE_AGAIN_AFTER_SECS + 1)
    for _ in range(5):
        sweep.once()
    assert rings == [("chat.prepare", str(row.pk))]
    clock.now += PREPARE_AGAIN_AFTER_SECS
    sweep.once()
    assert len(rings) == 2


def test_an_unbuilt_prompt_that_nobody_can_build_fails(sweep: Sweep) -> None:
    row = preparing(prepare_task="")
    grow_older(row, PREPARE_AGAIN_AFTER_SECS + 1)
    sweep.once()
    row.refresh_from_db()
    assert (row.status, row.error_code) == (Status.FAILED, "not_prepared")


# ---- deadlines and forgetting ----


@pytest.mark.parametrize("make", [queued, preparing])
def test_what_waits_beyond_its_deadline_ends_as_timed_out(sweep: Sweep, make: object) -> None:
    late, early, endless = make(timeout_secs=1), make(timeout_secs=60), make(timeout_secs=None)  # type: ignore[operator]
    Generation.objects.filter(pk=late.pk).update(deadline_at=timezone.now() - timedelta(seconds=1))
    sweep.once()
    statuses = {row.pk: row.status for row in Generation.objects.all()}
    assert statuses[late.pk] == Status.INTERRUPTED
    assert statuses[early.pk] == statuses[endless.pk] == late.status
    late.refresh_from_db()
    assert late.error_code == "timeout"


def test_ephemeral_rows_are_forgotten_after_their_readers_had_their_time(sweep: Sweep) -> None:
    old, young, kept, unfinished = queued(ephemeral=True), queued(ephemeral=True), queued(), queued(ephemeral=True)
    ended = [old.pk, young.pk, kept.pk]
    Generation.objects.filter(pk__in=ended).update(status=Status.COMPLETE, finished_at=timezone.now())
    for row in (old, kept, unfinished):
        grow_older(row, settings.TOKEN_LOG_TTL_SECS + 5)
    sweep.once()
    assert set(Generation.objects.values_list("pk", flat=True)) == {young.pk, kept.pk, unfinished.pk}


def test_the_log_of_an_ended_row_that_nobody_ended_is_removed(
    sweep: Sweep, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    """Its worker died between the two writes; a log that was ended stays for late readers."""
    logged = {name: running() for name in ("open", "ended", "running")}
    for name, row in logged.items():
        end = [End(index=2, status="complete")] if name == "ended" else []
        append(store, [Append(row.pk, row.claim_epoch, [*tokens("ab"), *end])])
        if name != "running":
            Generation.objects.filter(pk=row.pk).update(status=Status.COMPLETE, finished_at=timezone.now())
            grow_older(row, LOG_END_SECS + 1)
    clock.now += LOGS_EVERY_SECS
    sweep.once()
    assert [name for name, row in logged.items() if store.exists(log_key(row.pk))] == ["ended", "running"]


def test_logs_of_rows_that_ended_while_redis_was_away_are_removed_when_it_is_back(
    sweep: Sweep, clock: Clock, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    row = running()
    append(store, [Append(row.pk, row.claim_epoch, tokens("ab"))])
    Generation.objects.filter(pk=row.pk).update(status=Status.COMPLETE, finished_at=timezone.now())
    sweep.once()
    with monkeypatch.context() as patch:
        patch.setattr(redis_log, "without_end", away)
        for secs in (LOG_END_SECS + 1, LOGS_EVERY_SECS, LOGS_EVERY_SECS, LOGS_EVERY_SECS):
            clock.now += secs
            grow_older(row, clock.now - 1000)
            with suppress(StoreUnavailable):
                sweep.once()
    assert store.exists(log_key(row.pk))
    clock.now += LOGS_EVERY_SECS
    sweep.once()
    assert not store.exists(log_key(row.pk))


def test_thousands_of_queued_rows_do_not_slow_the_sweep_into_silence(sweep: Sweep, rings: Rings) -> None:
    then = timezone.now() - timedelta(seconds=30)
    Generation.objects.bulk_create(
        [Generation(owner=f"u{number % 9}", queued_at=then, priority=Priority.BATCH) for number in range(5000)]
    )
    began = timezone.now()
    sweep.once()
    assert len(rings) == 2
    assert (timezone.now() - began).total_seconds() < 5


# ---- what must follow an end ----


def ended_with_follow_up(**columns: object) -> Generation:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(
        status=Status.COMPLETE, follow_up_task="chat.follow", finished_at=timezone.now(), **columns
    )
    return row


def test_what_must_follow_is_rung_again_until_it_is_done(sweep: Sweep, clock: Clock, rings: Rings) -> None:
    row = ended_with_follow_up()
    rung = ("chat.follow", str(row.pk))
    rings.clear()
    sweep.once()
    assert rung not in rings  # the end itself has rung a moment ago
    for expected in (1, 2):
        clock.now += FOLLOW_UP_AGAIN_AFTER_SECS
        sweep.once()
        sweep.once()
        assert rings.count(rung) == expected
    assert Generation.objects.settle_follow_up(generation_id=row.pk)
    assert not Generation.objects.settle_follow_up(generation_id=row.pk)
    clock.now += FOLLOW_UP_AGAIN_AFTER_SECS
    sweep.once()
    assert rings.count(rung) == 2


def test_nothing_follows_before_the_end(sweep: Sweep, clock: Clock, rings: Rings) -> None:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(follow_up_task="chat.follow")
    assert not Generation.objects.settle_follow_up(generation_id=row.pk)
    for _ in range(2):
        sweep.once()
        clock.now += FOLLOW_UP_AGAIN_AFTER_SECS
    assert ("chat.follow", str(row.pk)) not in rings


def test_a_row_is_not_forgotten_before_what_must_follow_is_done(sweep: Sweep) -> None:
    row = ended_with_follow_up(ephemeral=True)
    grow_older(row, settings.TOKEN_LOG_TTL_SECS + 1)
    sweep.once()
    assert Generation.objects.settle_follow_up(generation_id=row.pk)
    sweep.once()
    assert not Generation.objects.filter(pk=row.pk).exists()
