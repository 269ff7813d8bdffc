"""Accepting generations: stored with the caller's transaction, a message on commit, once per idempotency key."""

import msgspec
import pytest
from celery import current_app
from django.db import IntegrityError, transaction
from kombu.exceptions import OperationalError as BrokerError

from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.params import SamplingParams, SequenceParams
from inference.errors import KeyReused, KeyTaken
from inference.models import Generation, Priority, Status
from inference.queue import generations
from tests.inference.making import PARAMS, preparing, queued
from tests.inference.queue.test_claim import in_threads

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

Notifications = list[tuple[str, str]]


def with_key(key: str, digest: str = "d1", owner: str = "user:1") -> Generation:
    return generations.create(
        owner=owner, params=PARAMS, prompt_ids=[1], timeout_secs=None, idempotency_key=key, request_digest=digest
    )


def test_a_generation_with_a_prompt_is_queued_and_notified(notifications: Notifications) -> None:
    generation = queued(prompt=[5, 262_143, 0])
    generation.refresh_from_db()
    assert generation.status == Status.QUEUED
    assert generation.prompt_ids == [5, 262_143, 0]
    assert generation.n_prompt_tokens == 3
    assert generation.queued_at is not None
    assert generation.deadline_at is not None
    assert (generation.deadline_at - generation.queued_at).total_seconds() == pytest.approx(60)
    assert notifications == [("inference.generate", str(generation.pk))]


def test_parameters_come_back_as_they_were() -> None:
    params = SequenceParams(
        sampling=SamplingParams(seed=2**63 - 1, temperature=1.5, logit_bias={7: -2.5, 262_143: None}),
        max_tokens=9,
        stop=["\n\n", "🙂"],
        ignore_eos=True,
        trim_start=True,
    )
    generation = queued(params=params)
    generation.refresh_from_db()
    expected = msgspec.structs.replace(params, cache_caller="user:1")  # of the generation's owner
    assert ActiveGeneration.of(generation, deadline=None).params == expected


@pytest.mark.parametrize("ephemeral", [False, True])
def test_the_engine_gets_whether_states_may_be_written_to_disk(ephemeral: bool) -> None:
    assert ActiveGeneration.of(queued(ephemeral=ephemeral), deadline=None).params.ephemeral is ephemeral


def test_no_message_before_the_commit_and_none_after_a_rollback(notifications: Notifications) -> None:
    with transaction.atomic():
        queued()
        assert notifications == []
    assert len(notifications) == 1
    with transaction.atomic():
        queued()
        transaction.set_rollback(True)
    assert len(notifications) == 1
    assert Generation.objects.count() == 1


def test_without_a_prompt_it_is_prepared_first(notifications: Notifications) -> None:
    generation = preparing()
    assert (generation.status, generation.queued_at, notifications) == (Status.PREPARING, None, [])
    assert generations.enqueue(generation_id=generation.pk, prompt_ids=[1, 2], details={"sources": 3})
    generation.refresh_from_db()
    assert (generation.status, generation.prompt_ids) == (Status.QUEUED, [1, 2])
    assert generation.details["sources"] == 3
    assert notifications == [("inference.generate", str(generation.pk))]


def test_only_one_of_two_preparations_enqueues(notifications: Notifications) -> None:
    generation = preparing()
    results: list[bool] = []

    def enqueue(number: int) -> None:
        results.append(generations.enqueue(generation_id=generation.pk, prompt_ids=[number]))

    in_threads(4, enqueue)
    assert sorted(results) == [False, False, False, True]
    assert len(notifications) == 1


def test_a_row_cancelled_during_its_preparation_is_not_enqueued(notifications: Notifications) -> None:
    generation = preparing()
    generations.request_cancel(generation_id=generation.pk)
    assert not generations.enqueue(generation_id=generation.pk, prompt_ids=[1])
    generation.refresh_from_db()
    assert (generation.status, notifications) == (Status.INTERRUPTED, [])


def test_the_deadline_counts_from_the_queue_not_from_the_preparation() -> None:
    generation = preparing(timeout_secs=10)
    first = generation.deadline_at
    generations.enqueue(generation_id=generation.pk, prompt_ids=[1])
    generation.refresh_from_db()
    assert first is not None
    assert generation.deadline_at is not None
    assert generation.deadline_at > first


@pytest.mark.parametrize("error", [BrokerError("away"), AttributeError("'NoneType' object has no attribute 'channel'")])
def test_a_broker_that_is_away_costs_no_request(
    monkeypatch: pytest.MonkeyPatch, notifications: Notifications, error: Exception
) -> None:
    """Nor does a fault of its client: the row is committed by then."""

    def away(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(current_app, "send_task", away)
    assert queued().status == Status.QUEUED


def test_a_key_finds_its_generation_for_its_owner_only() -> None:
    generation = with_key("k")
    found = generations.find_by_key(owner="user:1", idempotency_key="k", request_digest="d1")
    assert found == generation
    assert generations.find_by_key(owner="user:2", idempotency_key="k", request_digest="d1") is None
    assert generations.find_by_key(owner="user:1", idempotency_key="other", request_digest="d1") is None


def test_a_key_with_another_body_is_refused() -> None:
    with_key("k")
    with pytest.raises(KeyReused):
        generations.find_by_key(owner="user:1", idempotency_key="k", request_digest="d2")


def test_of_twenty_simultaneous_requests_with_one_key_one_is_stored() -> None:
    taken: list[str] = []

    def ask(number: int) -> None:
        try:
            with_key("k")
        except KeyTaken as error:
            taken.append(error.code)

    in_threads(20, ask)
    assert Generation.objects.count() == 1
    assert len(taken) == 19


def test_rows_without_a_key_do_not_collide() -> None:
    queued()
    queued()
    assert Generation.objects.filter(idempotency_key=None).count() == 2


def test_an_unknown_priority_is_refused_by_the_database() -> None:
    with pytest.raises(IntegrityError):
        queued(priority=3)  # type: ignore[arg-type]


def test_wait_returns_the_ended_row_or_raises_with_its_status() -> None:
    generation = queued(priority=Priority.BATCH)
    with pytest.raises(TimeoutError, match="still queued after 0.2 s"):
        generations.wait(generation.pk, 0.2)
    generations.request_cancel(generation_id=generation.pk)
    assert generations.wait(generation.pk, 0.2).status == Status.INTERRUPTED
