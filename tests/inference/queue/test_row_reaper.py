"""The part of the reaper that a web process runs, too: deadlines and cancels hold while no worker exists."""

from collections.abc import Callable

import pytest
import redis
from django.conf import settings

from inference.errors import StoreUnavailable
from inference.models import Generation, Status
from inference.queue.reaper import REAP_SECS, Reaper, RowReaper
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry
from inference.token_stream.redis_log import Append, append
from tests.clock import Clock
from tests.inference.making import preparing, queued, tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def row_reaper(clock: Clock) -> RowReaper:
    return RowReaper(clock=clock)


def run_for(row_reaper: RowReaper, clock: Clock, secs: float) -> None:
    row_reaper.run_once()
    for _ in range(round(secs / REAP_SECS)):
        clock.now += REAP_SECS
        row_reaper.run_once()


def claimed(*, timeout_secs: float | None) -> Generation:
    queued(timeout_secs=timeout_secs)
    row = Generation.objects.claim_next(worker="lost")
    assert row is not None
    return row


@pytest.mark.parametrize("make", [queued, preparing])
def test_a_waiting_row_ends_with_its_deadline(
    row_reaper: RowReaper, clock: Clock, store: "redis.Redis[bytes]", make: Callable[..., Generation]
) -> None:
    row, endless = make(timeout_secs=3.0), make(timeout_secs=None)
    run_for(row_reaper, clock, 2)
    row.refresh_from_db()
    assert not row.is_ended
    run_for(row_reaper, clock, 1)
    row.refresh_from_db()
    endless.refresh_from_db()
    assert (row.status, row.error_code) == (Status.INTERRUPTED, "timeout")
    assert not endless.is_ended
    entries = [redis_log.decode(fields[redis_log.FIELD]) for _, fields in store.xrange(log_key(row.pk))]
    assert entries == [EndEntry(index=0, status="interrupted")]


def test_a_row_of_a_lost_worker_ends_with_its_tokens(
    row_reaper: RowReaper, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    row = claimed(timeout_secs=settings.CLAIM_TTL_SECS / 2)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])
    run_for(row_reaper, clock, settings.CLAIM_TTL_SECS + 1)
    row.refresh_from_db()
    assert (row.status, row.error_code, row.text) == (Status.INTERRUPTED, "timeout", "abc")


def test_a_cancel_of_a_row_of_a_lost_worker_is_obeyed(row_reaper: RowReaper, clock: Clock) -> None:
    row = claimed(timeout_secs=None)
    Generation.objects.filter(pk=row.pk).update(cancel_requested=True)
    run_for(row_reaper, clock, settings.CLAIM_TTL_SECS + 1)
    row.refresh_from_db()
    assert (row.status, row.finish_reason) == (Status.INTERRUPTED, "cancelled")


def test_a_row_with_a_moving_heartbeat_keeps_its_own_deadline(row_reaper: RowReaper, clock: Clock) -> None:
    row = claimed(timeout_secs=3.0)
    for _ in range(10):
        run_for(row_reaper, clock, 1)
        Generation.objects.advance_heartbeats(worker="lost", generation_ids=[row.pk])
    row.refresh_from_db()
    assert (row.status, row.claim_epoch) == (Status.RUNNING, 1)


def test_it_sends_no_message_for_waiting_rows(
    row_reaper: RowReaper, clock: Clock, notifications: list[tuple[str, str]]
) -> None:
    """Without a worker they would pile up in the broker."""
    queued(waited_secs=60, timeout_secs=None)
    preparing(timeout_secs=None)
    notifications.clear()
    run_for(row_reaper, clock, 30)
    assert notifications == []


def test_two_of_them_and_a_worker_s_reaper_end_a_row_once(
    row_reaper: RowReaper, clock: Clock, store: "redis.Redis[bytes]"
) -> None:
    row = queued(timeout_secs=3.0)
    reapers: list[RowReaper | Reaper] = [row_reaper, RowReaper(clock=clock), Reaper(lambda: 0, clock=clock)]
    for _ in range(5):
        for reaper in reapers:
            reaper.run_once()
        clock.now += 1
    row.refresh_from_db()
    assert (row.status, row.claim_epoch) == (Status.INTERRUPTED, 1)
    assert len(store.xrange(log_key(row.pk))) == 1


def test_an_end_that_would_lose_tokens_waits_for_redis(
    row_reaper: RowReaper, clock: Clock, store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    row = claimed(timeout_secs=1.0)
    append(store, [Append(row.pk, row.claim_epoch, tokens("abc"))])
    Generation.objects.take_over(generation_id=row.pk, epoch=row.claim_epoch, heartbeat=row.heartbeat)

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(redis_log, "fence", unavailable)
        run_for(row_reaper, clock, 10)
        row.refresh_from_db()
        assert row.status == Status.QUEUED
    run_for(row_reaper, clock, 1)
    row.refresh_from_db()
    assert (row.status, row.text) == (Status.INTERRUPTED, "abc")
