"""The queue position that a waiting caller sees."""

import pytest
from django.test import override_settings

from inference.models import Generation, Priority
from inference.models.querysets import QUEUE_AGEING_SECS
from inference.monitoring import worker_report
from inference.queue import generations
from tests.inference.making import preparing, queued

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


def position(row: Generation) -> int | None:
    place = generations.queue_position(row.pk)
    return place.position if place else None


def test_the_oldest_is_next() -> None:
    rows = [queued(f"user:{waited}", waited_secs=waited) for waited in (30, 20, 10)]
    assert [position(row) for row in rows] == [1, 2, 3]
    Generation.objects.claim_next(worker="w")
    assert [position(row) for row in rows] == [None, 1, 2]


def test_batch_stands_behind_interactive() -> None:
    """The effect of age is not predicted: one row of a whole batch in a minute."""
    later = queued("b", priority=Priority.BATCH, waited_secs=20)
    earlier = queued("a", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS + 20)
    person = queued("p")
    assert {row.owner: position(row) for row in (later, earlier, person)} == {"p": 1, "a": 2, "b": 3}


@override_settings(GEMMA_PARALLEL=4)
def test_the_wait_is_estimated_from_recent_runs() -> None:
    rows = [queued(waited_secs=waited) for waited in (30, 20)]
    worker_report.publish(worker_report.WorkerReport(pid=1, mean_run_secs=8.0))
    places = [generations.queue_position(row.pk) for row in rows]
    assert [place.wait_secs for place in places if place] == [2.0, 4.0]


def test_a_row_that_is_not_queued_has_no_position() -> None:
    assert generations.queue_position(preparing().pk) is None
    generation = queued()
    generations.request_cancel(generation_id=generation.pk)
    assert generations.queue_position(generation.pk) is None
