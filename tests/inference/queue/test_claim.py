"""Claiming: exactly one winner, fairness between owners, priority and ageing, on both databases."""

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from inference.models import Generation, Priority, Status
from inference.models.querysets import QUEUE_AGEING_SECS
from tests.inference.making import queued

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

claim = Generation.objects.claim_next


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in threads that begin together; the first error is raised here."""
    errors: list[BaseException] = []
    begin = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            begin.wait(10)
            work(number)
        except BaseException as error:  # noqa: BLE001  handed to the test
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def claimed_owners(count: int) -> list[str]:
    rows = [claim(worker="w") for _ in range(count)]
    return [row.owner for row in rows if row is not None]


def test_nothing_queued_is_nothing_claimed() -> None:
    assert claim(worker="w") is None


def test_a_claim_marks_the_row() -> None:
    waiting = queued(waited_secs=5)
    row = claim(worker="w1")
    assert row is not None
    assert (row.pk, row.status, row.worker, row.attempt, row.claim_epoch) == (waiting.pk, "running", "w1", 1, 1)
    assert row.started_at is not None
    assert 5000 <= row.timings["queue"] < 20_000
    assert row.prompt_ids == [1, 2, 3]


def test_eight_threads_and_one_row_have_one_winner() -> None:
    for _ in range(5):
        queued()
        winners: list[Generation] = []

        def attempt(number: int, winners: list[Generation] = winners) -> None:
            row = claim(worker=f"w{number}")
            if row is not None:
                winners.append(row)

        in_threads(8, attempt)
        assert len(winners) == 1
        assert winners[0].claim_epoch == 1
        Generation.objects.update(status=Status.COMPLETE)


def test_eight_threads_claim_every_row_once() -> None:
    for number in range(40):
        queued(f"user:{number % 5}")
    claimed: list[str] = []

    def drain(number: int) -> None:
        while (row := claim(worker=f"w{number}")) is not None:
            claimed.append(str(row.pk))

    in_threads(8, drain)
    # A thread may leave early when others hold all rows it sees; the rest is claimed at the next wake-up message.
    while (row := claim(worker="last")) is not None:
        claimed.append(str(row.pk))
    assert len(claimed) == len(set(claimed)) == 40
    assert set(Generation.objects.values_list("attempt", "claim_epoch")) == {(1, 1)}


def test_the_owner_with_fewest_running_is_served_first() -> None:
    for _ in range(3):
        queued("greedy", waited_secs=30)
    assert claimed_owners(2) == ["greedy", "greedy"]
    queued("light")
    assert claimed_owners(2) == ["light", "greedy"]


def test_of_equals_the_one_served_longest_ago_is_first() -> None:
    now = timezone.now()
    for owner, served_secs_ago in (("recent", 5), ("long_ago", 500)):
        done = queued(owner)
        Generation.objects.filter(pk=done.pk).update(
            status=Status.COMPLETE, started_at=now - timedelta(seconds=served_secs_ago)
        )
        queued(owner, waited_secs=20)
    queued("never", waited_secs=1)
    assert claimed_owners(3) == ["never", "long_ago", "recent"]


def test_of_one_owner_the_oldest_is_first() -> None:
    rows = [queued(waited_secs=waited) for waited in (3, 9, 6)]
    claimed = [claim(worker="w") for _ in range(3)]
    assert [row.pk for row in claimed if row] == [rows[1].pk, rows[2].pk, rows[0].pk]


def test_interactive_comes_before_batch() -> None:
    queued("batch", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS - 30)
    queued("person")
    assert claimed_owners(2) == ["person", "batch"]


def test_a_batch_row_that_waited_long_counts_as_interactive() -> None:
    queued("batch", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS + 1)
    queued("person")
    assert claimed_owners(2) == ["batch", "person"]


def test_of_an_aged_batch_one_row_per_owner_is_promoted() -> None:
    """Its owner's own question waits behind one row of it, not behind all."""
    for _ in range(5):
        queued("local", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS + 30)
    for _ in range(2):
        queued("local")
    claimed = [claim(worker="w") for _ in range(4)]
    assert [row.priority for row in claimed if row] == [Priority.BATCH, *[Priority.INTERACTIVE] * 2, Priority.BATCH]


def test_a_light_user_waits_for_no_more_than_one_start_of_a_greedy_one() -> None:
    for _ in range(20):
        queued("greedy", waited_secs=40)
    assert claimed_owners(4) == ["greedy"] * 4
    queued("light")
    finished = Generation.objects.running().first()
    assert finished is not None
    Generation.objects.filter(pk=finished.pk).update(status=Status.COMPLETE)
    assert claimed_owners(1) == ["light"]


def test_preparing_rows_are_not_claimed() -> None:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(status=Status.PREPARING)
    assert claim(worker="w") is None


def test_ten_thousand_rows_are_served_fairly() -> None:
    now = timezone.now()
    Generation.objects.bulk_create(
        [
            Generation(owner=f"user:{number % 4}", queued_at=now + timedelta(milliseconds=number), priority=2)
            for number in range(10_000)
        ]
    )
    queued("person")
    owners = claimed_owners(9)
    assert owners[0] == "person"
    assert Counter(owners[1:]) == {f"user:{number}": 2 for number in range(4)}
