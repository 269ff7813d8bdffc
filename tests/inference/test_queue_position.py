"""What a waiting caller is told about its place."""

import pytest

from inference import services
from inference.models import Generation, Priority
from inference.querysets import QUEUE_AGEING_SECS
from tests.inference.making import preparing, queued

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


def test_the_oldest_is_next() -> None:
    rows = [queued(f"user:{waited}", waited_secs=waited) for waited in (30, 20, 10)]
    assert [services.queue_position(row.pk) for row in rows] == [1, 2, 3]
    Generation.objects.claim_next(worker="w")
    assert [services.queue_position(row.pk) for row in rows] == [None, 1, 2]


def test_batch_stands_behind_interactive_until_it_has_aged() -> None:
    batch = queued("b", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS - 20)
    aged = queued("a", priority=Priority.BATCH, waited_secs=QUEUE_AGEING_SECS + 20)
    person = queued("p")
    positions = {row.owner: services.queue_position(row.pk) for row in (batch, aged, person)}
    assert positions == {"a": 1, "p": 2, "b": 3}


def test_what_does_not_wait_in_the_queue_has_no_place() -> None:
    assert services.queue_position(preparing().pk) is None
    generation = queued()
    services.request_cancel(generation_id=generation.pk)
    assert services.queue_position(generation.pk) is None
