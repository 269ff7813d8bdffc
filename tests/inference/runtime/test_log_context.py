"""The ids of log lines: accepted values, the extent of a binding, and the id in a row."""

import asyncio
from uuid import UUID, uuid4

import pytest

from inference.models import Generation
from inference.queue import generations
from inference.runtime import log_context
from inference.runtime.threads import in_thread
from tests.inference.making import preparing, queued

pytestmark = pytest.mark.django_db(transaction=True)


def bound_ids() -> tuple[str, str]:
    return log_context.request_id(), log_context.generation_id()


@pytest.mark.parametrize("value", ["a", "A-1_b.c", "0" * 64, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"])
def test_a_safe_id_is_taken(value: str) -> None:
    assert log_context.safe_request_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "a\n",
        "\na",
        "a\r\nb",
        "a\0b",
        "\x1b[31m",
        "a b",
        "a=b",
        "0" * 65,
        "a" * 10_000,
        "é",
        "١",
        "ａ",
        "%0a",
        5,
    ],
)
def test_any_other_value_is_replaced(value: object) -> None:
    made = log_context.safe_request_id(value)
    assert made != value
    assert log_context.SAFE_ID.fullmatch(made)


def test_a_block_has_ids_of_its_own() -> None:
    outer, inner = uuid4(), uuid4()
    with log_context.bound(request="outer", generation=outer):
        with log_context.bound(generation=inner):
            assert bound_ids() == ("", str(inner))
        assert bound_ids() == ("outer", str(outer))
    assert bound_ids() == ("", "")


async def test_a_thread_that_a_task_calls_has_its_ids() -> None:
    async def work(request: str) -> tuple[str, str]:
        log_context.bind(request=request)
        await asyncio.sleep(0)
        return await in_thread(bound_ids)

    both = await asyncio.gather(work("one"), work("two"))
    assert [request for request, _ in both] == ["one", "two"]
    assert log_context.request_id() == ""


def test_a_generation_stores_the_id_of_its_request() -> None:
    with log_context.bound(request="abc"):
        row = queued()
    assert log_context.stored_request_id(Generation.objects.get(pk=row.pk)) == "abc"
    assert log_context.request_of(str(row.pk)) == "abc"
    with log_context.bound_to(row):
        assert bound_ids() == ("abc", str(row.pk))
    with generations.log_lines_of(row.pk):
        assert bound_ids() == ("abc", str(row.pk))


def test_a_generation_without_a_request_gets_an_id() -> None:
    first, second = queued(), queued()
    ids = {log_context.stored_request_id(row) for row in (first, second)}
    assert len(ids) == 2
    assert all(map(log_context.SAFE_ID.fullmatch, ids))


def test_the_id_outlives_the_preparation() -> None:
    with log_context.bound(request="abc"):
        row = preparing()
    assert generations.enqueue(generation_id=row.pk, prompt_ids=[1], details={"sources": 3})
    row.refresh_from_db()
    assert row.details == {"sources": 3, "request_id": "abc"}


@pytest.mark.parametrize("value", [None, 5, "a\nb", "a" * 65, ["abc"]])
def test_an_invalid_id_in_the_row_is_ignored(value: object) -> None:
    row = queued()
    Generation.objects.filter(pk=row.pk).update(details={"request_id": value})
    row.refresh_from_db()
    assert log_context.stored_request_id(row) == ""


def test_a_row_that_is_gone_has_no_request() -> None:
    missing: UUID = uuid4()
    with generations.log_lines_of(missing):
        assert bound_ids() == ("", str(missing))


def test_only_the_last_generations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_context, "MAX_REQUESTS", 2)
    log_context._requests.clear()
    ids = [uuid4() for _ in range(3)]
    for number, generation in enumerate(ids):
        log_context.remember(generation, f"r{number}")
    assert [log_context.request_of(str(generation)) for generation in ids] == ["", "r1", "r2"]
