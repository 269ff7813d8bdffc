"""Claims after they were won: beating, giving back, taking over, finishing under an epoch that has passed."""

import pytest

from inference.models import Generation, Status
from inference.queue.results import CANCELLED, row_columns
from tests.inference.making import PARAMS, queued, tokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


def claimed(worker: str = "w1") -> Generation:
    queued()
    row = Generation.objects.claim_next(worker=worker)
    assert row is not None
    return row


def take_over(row: Generation) -> bool:
    return Generation.objects.take_over(generation_id=row.pk, epoch=row.claim_epoch, heartbeat=row.heartbeat)


def test_a_beat_moves_the_counter_of_this_workers_rows_only() -> None:
    mine, other = claimed("w1"), claimed("w2")
    assert Generation.objects.advance_heartbeats(worker="w1", generation_ids=[mine.pk, other.pk]) == 1
    before = {mine.pk: mine.heartbeat, other.pk: other.heartbeat}
    after = dict(Generation.objects.values_list("pk", "heartbeat"))
    assert after[mine.pk] == before[mine.pk] + 1
    assert after[other.pk] == before[other.pk]


def test_a_take_over_puts_the_row_back_under_a_higher_epoch() -> None:
    row = claimed()
    assert take_over(row)
    queued_at = row.queued_at
    row.refresh_from_db()
    assert (row.status, row.worker, row.claim_epoch, row.attempt) == (Status.QUEUED, "", 2, 1)
    assert row.queued_at == queued_at


def test_a_counter_that_moved_meanwhile_saves_the_owner() -> None:
    row = claimed()
    Generation.objects.advance_heartbeats(worker="w1", generation_ids=[row.pk])
    assert not take_over(row)
    row.refresh_from_db()
    assert (row.status, row.claim_epoch) == (Status.RUNNING, 1)


def test_two_reapers_take_over_once() -> None:
    row = claimed()
    assert [take_over(row), take_over(row)] == [True, False]


def test_the_late_owner_can_finish_nothing() -> None:
    row = claimed()
    take_over(row)
    again = Generation.objects.claim_next(worker="w2")
    assert again is not None
    assert again.claim_epoch > row.claim_epoch
    columns = row_columns(CANCELLED, tokens("late"), PARAMS, vocabulary=None)
    assert not Generation.objects.finish(generation_id=row.pk, epoch=row.claim_epoch, columns=columns)
    assert not Generation.objects.release_claim(generation_id=row.pk, epoch=row.claim_epoch, counts_as_attempt=True)
    row.refresh_from_db()
    assert (row.status, row.text, row.worker) == (Status.RUNNING, "", "w2")


def test_a_finish_happens_once() -> None:
    row = claimed()
    columns = row_columns(CANCELLED, tokens("done"), PARAMS, vocabulary=None)
    finishes = [
        Generation.objects.finish(generation_id=row.pk, epoch=row.claim_epoch, columns=columns) for _ in range(2)
    ]
    assert finishes == [True, False]
    row.refresh_from_db()
    assert (row.text, row.worker, row.prompt_ids, row.n_prompt_tokens) == ("done", "", [], 3)


@pytest.mark.parametrize(("counts", "attempt"), [(True, 1), (False, 0)])
def test_giving_back_may_count_as_an_attempt_or_not(counts: bool, attempt: int) -> None:
    row = claimed()
    assert Generation.objects.release_claim(generation_id=row.pk, epoch=row.claim_epoch, counts_as_attempt=counts)
    row.refresh_from_db()
    assert (row.status, row.attempt, row.claim_epoch) == (Status.QUEUED, attempt, 2)
