"""Cancels of waiting, running and ended rows, and of rows that a lost worker had begun."""

import json
from uuid import uuid4

import pytest
import redis

from inference.config.tokenizer import get_tokenizer
from inference.errors import AlreadyEnded, StoreUnavailable
from inference.models import FinishReason, Generation, Status
from inference.queue import generations
from inference.queue.reaper import Reaper
from inference.queue.termination import LOG_PATIENCE_SECS
from inference.runtime.redis_client import CONTROL_CHANNEL, log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import EndEntry, TokenEntry
from inference.token_stream.redis_log import Append, Verdict
from tests.clock import Clock
from tests.inference.making import preparing, queued
from tests.inference.queue.test_claim import in_threads

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


def entries(store: "redis.Redis[bytes]", generation: Generation) -> list[object]:
    stream = store.xrange(log_key(generation.pk))
    return [redis_log.decode(fields[redis_log.FIELD]) for _, fields in stream]


def test_an_unknown_generation_is_unknown() -> None:
    with pytest.raises(Generation.DoesNotExist):
        generations.request_cancel(generation_id=uuid4())


@pytest.mark.parametrize("make", [queued, preparing])
def test_a_waiting_row_ends_at_once(store: "redis.Redis[bytes]", make: object) -> None:
    generation = make()  # type: ignore[operator]
    assert generations.request_cancel(generation_id=generation.pk) is Status.INTERRUPTED
    generation.refresh_from_db()
    assert (generation.status, generation.finish_reason) == (Status.INTERRUPTED, FinishReason.CANCELLED)
    assert generation.finished_at is not None
    assert entries(store, generation) == [EndEntry(index=0, status="interrupted")]
    assert Generation.objects.claim_next(worker="w") is None


def test_an_ended_row_cannot_be_cancelled() -> None:
    generation = queued()
    generations.request_cancel(generation_id=generation.pk)
    for _ in range(2):
        with pytest.raises(AlreadyEnded):
            generations.request_cancel(generation_id=generation.pk)


def test_a_running_row_is_flagged_and_its_worker_notified(store: "redis.Redis[bytes]") -> None:
    generation = queued()
    Generation.objects.claim_next(worker="w")
    pubsub = store.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(CONTROL_CHANNEL)
    pubsub.get_message(timeout=1)
    for _ in range(3):
        assert generations.request_cancel(generation_id=generation.pk) is Status.RUNNING
    generation.refresh_from_db()
    assert (generation.status, generation.cancel_requested) == (Status.RUNNING, True)
    message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"].decode() == str(generation.pk)
    pubsub.close()


def test_cancel_and_claim_at_the_same_instant_lose_nothing() -> None:
    for _ in range(10):
        generation = queued()
        outcomes: list[object] = []

        def act(number: int, generation: Generation = generation, outcomes: list[object] = outcomes) -> None:
            if number == 0:
                outcomes.append(Generation.objects.claim_next(worker="w"))
            else:
                outcomes.append(generations.request_cancel(generation_id=generation.pk))

        in_threads(2, act)
        generation.refresh_from_db()
        if generation.status == Status.RUNNING:
            assert generation.cancel_requested
        else:
            assert generation.status == Status.INTERRUPTED
            assert None in outcomes
        Generation.objects.update(status=Status.COMPLETE)


def begun_and_lost(store: "redis.Redis[bytes]", say: str) -> Generation:
    """A queued generation that a worker had begun to answer before it was lost."""
    generation = queued()
    row = Generation.objects.claim_next(worker="lost")
    assert row is not None
    entries = [
        TokenEntry(index=index, token=token, text=char)
        for index, (token, char) in enumerate(zip(get_tokenizer().encode(say), say, strict=True), start=1)
    ]
    redis_log.append(store, [Append(row.pk, row.claim_epoch, entries)])
    assert Generation.objects.take_over(generation_id=row.pk, epoch=row.claim_epoch, heartbeat=row.heartbeat)
    return generation


def test_the_tokens_of_a_lost_worker_are_kept(store: "redis.Redis[bytes]") -> None:
    generation = begun_and_lost(store, "half an ans")
    generations.request_cancel(generation_id=generation.pk)
    generation.refresh_from_db()
    assert (generation.text, generation.n_completion_tokens) == ("half an ans", 11)
    assert get_tokenizer().decode(generation.output_ids) == "half an ans"
    assert entries(store, generation)[-1] == EndEntry(index=11, status="interrupted")


def test_the_lost_worker_can_write_nothing_after_the_cancel(store: "redis.Redis[bytes]") -> None:
    generation = begun_and_lost(store, "ab")
    generations.request_cancel(generation_id=generation.pk)
    late = Append(generation.pk, 1, [TokenEntry(index=3, token=9, text="zombie")])
    assert redis_log.append(store, [late])[0].verdict is Verdict.STALE


def test_without_redis_a_begun_row_ends_later_with_its_tokens(
    monkeypatch: pytest.MonkeyPatch, store: "redis.Redis[bytes]"
) -> None:
    """Readers have received them; a row that ends without them has less text than theirs."""
    generation, untouched = begun_and_lost(store, "ab"), queued("user:2")
    with monkeypatch.context() as patch:
        redis_is_away(patch)
        assert generations.request_cancel(generation_id=untouched.pk) is Status.INTERRUPTED
        assert generations.request_cancel(generation_id=generation.pk) is Status.QUEUED
    Reaper(lambda: 0).run_once()
    generation.refresh_from_db()
    assert (generation.status, generation.text, generation.finish_reason) == ("interrupted", "ab", "cancelled")


def test_without_redis_for_long_it_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch, store: "redis.Redis[bytes]"
) -> None:
    generation, clock = begun_and_lost(store, "ab"), Clock()
    redis_is_away(monkeypatch)
    generations.request_cancel(generation_id=generation.pk)
    reaper = Reaper(lambda: 0, clock=clock)
    for secs, status in ((0.0, "queued"), (LOG_PATIENCE_SECS - 1, "queued"), (1.0, "interrupted")):
        clock.now += secs
        reaper.run_once()
        generation.refresh_from_db()
        assert generation.status == status
    assert generation.text == ""


def redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(redis_log, "append", away)
    monkeypatch.setattr(redis_log, "fence", away)


def test_a_failed_preparation_stores_its_error(store: "redis.Redis[bytes]") -> None:
    generation = preparing()
    assert generations.fail(generation_id=generation.pk, code="rag", message="no memories")
    assert not generations.fail(generation_id=generation.pk, code="again", message="")
    generation.refresh_from_db()
    assert (generation.status, generation.error_code, generation.error_message) == ("failed", "rag", "no memories")
    assert json.loads(json.dumps(generation.usage))["completion_tokens"] == 0
    assert entries(store, generation) == [EndEntry(index=0, status="failed")]
