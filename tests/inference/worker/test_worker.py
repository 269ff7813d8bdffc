"""The worker with a real runner process on the fake model: every outcome of a generation, with one End in each."""

import contextlib
import logging
import os
import signal
import threading
import time
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection
from django.test import override_settings
from redis.exceptions import RedisError

from inference.config.tokenizer import get_tokenizer
from inference.engine.params import SamplingParams, SequenceParams
from inference.errors import AlreadyEnded
from inference.models import FinishReason, Generation, Priority, Status
from inference.models.querysets import GenerationQuerySet
from inference.monitoring import worker_report
from inference.monitoring.worker_report import last_report
from inference.queue import generations as services
from inference.runtime.redis_client import log_key
from inference.token_stream import redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, TokenEntry
from inference.token_stream.reader import replay
from inference.worker import claim_settlement
from inference.worker.worker import Worker
from tests.inference.making import queued
from tests.inference.working import eventually, has_tokens, is_ended, running_worker

pytestmark = pytest.mark.django_db(transaction=True)

SLOW = "[[delay: 20]] [[count: 500]]"


def logged(store: "redis.Redis[bytes]", generation: Generation) -> list[AnyEntry]:
    stream = store.xrange(log_key(generation.pk))
    return [redis_log.decode(fields[redis_log.FIELD]) for _, fields in stream]


def assert_one_end(store: "redis.Redis[bytes]", generation: Generation) -> None:
    """Exactly one End, the last entry, with the row's status; log and row have the same text in the same pieces."""
    generation.refresh_from_db()
    assert eventually(lambda: any(isinstance(entry, EndEntry) for entry in logged(store, generation)))
    entries = logged(store, generation)
    ends = [entry for entry in entries if isinstance(entry, EndEntry)]
    assert len(ends) == 1
    assert entries[-1] == ends[0]
    assert ends[0].status == generation.status
    text = "".join(entry.text for entry in entries if isinstance(entry, TokenEntry | EndEntry))
    assert text == generation.text
    replayed = list(replay(generation, 0))
    pieces = [(entry.index, entry.text, entry.device) for entry in entries if isinstance(entry, TokenEntry)]
    assert [(entry.index, entry.text, entry.device) for entry in replayed if isinstance(entry, TokenEntry)] == pieces
    assert replayed[-1] == ends[0]


def run_to_end(*generations: Generation) -> None:
    with running_worker() as (_, notifier):
        notifier.notify(len(generations))
        notifier.join()
    for generation in generations:
        generation.refresh_from_db()


def test_an_answer_is_computed_logged_and_stored(store: "redis.Redis[bytes]") -> None:
    generation = queued(say="[[count: 12]]")
    run_to_end(generation)
    assert (generation.status, generation.finish_reason) == (Status.COMPLETE, FinishReason.STOP)
    assert generation.text == "1 2 3 4 5 6 7 8 9 10 11 12 "
    assert get_tokenizer().decode(generation.output_ids) == generation.text
    assert generation.usage["completion_tokens"] == len(generation.text)
    assert generation.model_name == "fake-it"
    assert generation.devices == [{"device": "cpu", "tokens": len(generation.text)}]
    assert set(generation.timings) == {"queue", "gpu_wait", "load", "restore", "prefill", "first_token", "decode"}
    assert (generation.prompt_ids, generation.worker) == ([], "")
    assert_one_end(store, generation)


def test_an_end_notifies_its_follow_up_task(notifications: list[tuple[str, str]]) -> None:
    generation = queued(say="[[say: done]]")
    Generation.objects.filter(pk=generation.pk).update(follow_up_task="chat.follow")
    with running_worker() as (_, notifier):
        notifier.notify()
        assert eventually(lambda: is_ended(generation))
        assert eventually(lambda: ("chat.follow", str(generation.pk)) in notifications)


def test_an_ordinary_answer_leaves_no_line_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inference.worker.claim_pool")
    run_to_end(ordinary := queued(say="hello"))
    assert str(ordinary.pk) not in caplog.text
    moved = queued(say="hello")
    Generation.objects.filter(pk=moved.pk).update(claim_epoch=2)
    run_to_end(moved)
    assert f"claimed generation={moved.pk} attempt=1 epoch=3" in caplog.text


def test_a_stop_string_across_tokens_leaves_text_and_output_alike(store: "redis.Redis[bytes]") -> None:
    params = SequenceParams(sampling=SamplingParams(seed=1, temperature=0.0), stop=["7 8"])
    generation = queued(say="[[count: 20]]", params=params)
    run_to_end(generation)
    assert generation.text == "1 2 3 4 5 6 "
    assert get_tokenizer().decode(generation.output_ids) == generation.text
    assert_one_end(store, generation)


def test_max_tokens_ends_with_length(store: "redis.Redis[bytes]") -> None:
    params = SequenceParams(sampling=SamplingParams(seed=1, temperature=0.0), max_tokens=5)
    generation = queued(say="[[say: 🙂🙂🙂]]", params=params)
    run_to_end(generation)
    assert (generation.status, generation.finish_reason) == (Status.COMPLETE, FinishReason.LENGTH)
    assert generation.text.startswith("🙂")
    assert_one_end(store, generation)


def test_four_at_once_progress_side_by_side(store: "redis.Redis[bytes]") -> None:
    generations = [queued(f"user:{number}", say="[[delay: 5]] [[count: 30]]") for number in range(4)]
    run_to_end(*generations)
    for generation in generations:
        assert generation.text.endswith(" 30 ")
        assert_one_end(store, generation)
    started = [generation.started_at for generation in generations]
    finished = [generation.finished_at for generation in generations]
    assert all(finish is not None for finish in finished)
    assert max(str(start) for start in started) < min(str(finish) for finish in finished)


@override_settings(GEMMA_PARALLEL=1)
def test_an_interactive_row_does_not_wait_for_a_batch_row_in_the_only_slot(store: "redis.Redis[bytes]") -> None:
    with running_worker() as (worker, notifier):
        fold = queued("a", say="[[delay: 20]] [[count: 60]]", priority=Priority.BATCH)
        notifier.notify()
        assert eventually(has_tokens(fold, 10, worker))
        notifier.join()  # the thread is free: with one for each place, Celery's tasks are not held up by batch work
        later = queued("d", say="[[say: when there is time]]", priority=Priority.BATCH)
        rows = [queued("b", say="[[say: at once]]"), queued("c", say="[[say: me too]]")]
        notifier.notify(3)
        notifier.join()
        fold.refresh_from_db()
        later.refresh_from_db()
        assert all(map(is_ended, rows))
        assert [row.text for row in rows] == ["at once", "me too"]
        assert (fold.status, fold.attempt, later.status) == (Status.RUNNING, 1, Status.QUEUED)
        # Its wake-up message was used up: the thread that frees the slot claims it.
        assert eventually(lambda: is_ended(later))
        assert is_ended(fold)
    assert fold.text == "".join(f"{number} " for number in range(1, 61))
    for generation in (fold, *rows, later):
        assert_one_end(store, generation)


def test_a_wake_up_message_without_a_row_does_nothing() -> None:
    with running_worker() as (worker, _):
        assert worker.run_next() is False


def test_a_prompt_beyond_the_context_fails_alone(store: "redis.Redis[bytes]") -> None:
    too_long = queued("a", prompt=[5] * 70_000)
    fine = queued("b", say="[[say: ok]]")
    run_to_end(too_long, fine)
    assert (too_long.status, too_long.error_code) == (Status.FAILED, "context_overflow")
    assert fine.text == "ok"
    assert_one_end(store, too_long)


# ---- cancel and deadline ----


def test_a_cancel_by_signal_stops_it_and_keeps_the_text(store: "redis.Redis[bytes]") -> None:
    generation = queued(say=SLOW)
    with override_settings(HEARTBEAT_SECS=60.0), running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(lambda: worker.control.is_subscribed)
        assert eventually(has_tokens(generation, 5, worker))
        services.request_cancel(generation_id=generation.pk)
        with contextlib.suppress(AlreadyEnded):  # it may be quicker than the second and third
            services.request_cancel(generation_id=generation.pk)
            services.request_cancel(generation_id=generation.pk)
        assert eventually(lambda: is_ended(generation), secs=5)
    assert (generation.status, generation.finish_reason) == (Status.INTERRUPTED, FinishReason.CANCELLED)
    assert generation.text.startswith("1 2 ")
    assert_one_end(store, generation)


def test_a_cancel_whose_signal_was_lost_is_seen_at_the_heartbeat(store: "redis.Redis[bytes]") -> None:
    generation = queued(say=SLOW)
    with override_settings(HEARTBEAT_SECS=0.1), running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 5, worker))
        Generation.objects.filter(pk=generation.pk).update(cancel_requested=True)
        assert eventually(lambda: is_ended(generation), secs=5)
    assert generation.finish_reason == FinishReason.CANCELLED
    assert_one_end(store, generation)


def test_a_row_cancelled_before_its_claim_is_not_computed(store: "redis.Redis[bytes]") -> None:
    generation = queued(say="[[say: never]]")
    Generation.objects.update(cancel_requested=True)
    run_to_end(generation)
    assert (generation.status, generation.text) == (Status.INTERRUPTED, "")
    assert_one_end(store, generation)


def test_the_deadline_counts_from_the_queue(store: "redis.Redis[bytes]") -> None:
    generation = queued(say=SLOW, timeout_secs=2.0)
    run_to_end(generation)
    assert (generation.status, generation.error_code) == (Status.INTERRUPTED, "timeout")
    assert generation.finished_at is not None
    assert generation.queued_at is not None
    assert 1.9 < (generation.finished_at - generation.queued_at).total_seconds() < 6
    assert_one_end(store, generation)


# ---- faults ----


def test_a_poisoned_prompt_fails_alone(store: "redis.Redis[bytes]") -> None:
    others = [queued(f"user:{number}", say="[[delay: 5]] [[count: 40]]") for number in range(3)]
    poison = queued("mallory", say="[[abort]]")
    run_to_end(*others, poison)
    assert (poison.status, poison.error_code) == (Status.FAILED, "runner_crashed")
    for generation in (*others, poison):
        assert_one_end(store, generation)
    assert [generation.status for generation in others] == [Status.COMPLETE] * 3
    assert all(generation.text.endswith(" 40 ") and generation.attempt == 1 for generation in others)


def test_a_killed_runner_costs_a_pause_and_no_token(store: "redis.Redis[bytes]") -> None:
    generation = queued(say="[[delay: 10]] [[count: 60]]")
    with running_worker() as (worker, notifier):
        notifier.notify()
        for at in (10, 60):
            assert eventually(has_tokens(generation, at, worker))
            assert worker.dispatcher.runner_pid is not None
            os.kill(worker.dispatcher.runner_pid, signal.SIGKILL)
        notifier.join()
    generation.refresh_from_db()
    assert generation.text == "".join(f"{number} " for number in range(1, 61))
    assert_one_end(store, generation)


def test_a_redis_wiped_in_the_middle_costs_nothing(store: "redis.Redis[bytes]") -> None:
    generation = queued(say="[[delay: 10]] [[count: 60]]")
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 20, worker))
        store.flushall()
        notifier.join()
    generation.refresh_from_db()
    assert generation.text.endswith(" 60 ")
    assert_one_end(store, generation)


def test_a_row_taken_over_is_dropped_and_written_by_the_new_owner_only(store: "redis.Redis[bytes]") -> None:
    """The zombie: its claim is taken while it computes; it finds out and leaves the row alone."""
    generation = queued(say=SLOW)
    with override_settings(HEARTBEAT_SECS=0.1), running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 5, worker))
        generation.refresh_from_db()
        while not Generation.objects.take_over(generation_id=generation.pk, epoch=1, heartbeat=generation.heartbeat):
            generation.refresh_from_db()
        other = Generation.objects.claim_next(worker="somebody else")
        assert other is not None
        notifier.join()
    generation.refresh_from_db()
    assert (generation.status, generation.worker, generation.text) == (Status.RUNNING, "somebody else", "")
    assert generation.claim_epoch == 3


def test_a_row_taken_from_this_worker_may_be_claimed_by_it_again(store: "redis.Redis[bytes]") -> None:
    """After a suspension the reaper may be quicker than the heartbeat: both claims are in one process then."""
    generation = queued(say="[[delay: 20]] [[count: 60]]")
    with override_settings(HEARTBEAT_SECS=60.0), running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 5, worker))
        generation.refresh_from_db()
        held = {"epoch": generation.claim_epoch, "heartbeat": generation.heartbeat}
        assert Generation.objects.take_over(generation_id=generation.pk, **held)
        notifier.notify()
        notifier.join()  # the former claim too
        assert worker.claims.active == {}
    generation.refresh_from_db()
    assert (generation.status, generation.attempt) == (Status.COMPLETE, 2)
    assert generation.text == "".join(f"{number} " for number in range(1, 61))
    assert_one_end(store, generation)


def test_a_deleted_row_stops_its_computation() -> None:
    generation = queued(say=SLOW)
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 5, worker))
        services.delete(generation_ids=[generation.pk])
        notifier.join()
        assert worker.claims.active == {}
    assert not Generation.objects.exists()


def test_a_database_that_is_locked_at_the_end_is_waited_for(store: "redis.Redis[bytes]") -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a lock of SQLite's")
    generation = queued(say="[[say: kept]]")
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(lambda: bool(worker.claims.active) or is_ended(generation))
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            time.sleep(1.0)  # long enough for the answer to be there
            cursor.execute("COMMIT")
        notifier.join()
    generation.refresh_from_db()
    assert generation.text == "kept"
    assert_one_end(store, generation)


def test_an_answer_that_could_not_be_stored_is_stored_later_from_its_log(
    store: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is unavailable for too long: the claim ends without a result, the next one finds every token."""
    monkeypatch.setattr(claim_settlement, "DATABASE_PATIENCE_SECS", 0.0)
    finish, failures = GenerationQuerySet.finish, [OperationalError("database or disk is full")]

    def failing_once(rows: GenerationQuerySet, **move: Any) -> bool:  # noqa: ANN401
        if failures:
            raise failures.pop()
        return finish(rows, **move)

    monkeypatch.setattr(GenerationQuerySet, "finish", failing_once)
    generation = queued(say="[[say: kept]]")
    with running_worker() as (worker, _):
        with pytest.raises(OperationalError):
            worker.run_next()
        row = Generation.objects.get(pk=generation.pk)
        assert (row.status, row.text) == (Status.RUNNING, "")
        output = [entry.text for entry in logged(store, generation) if isinstance(entry, TokenEntry)]
        assert "".join(output) == "kept"
        assert not worker.claims.holds(row.pk, row.claim_epoch), "the reaper takes it over"
        assert Generation.objects.take_over(generation_id=row.pk, epoch=row.claim_epoch, heartbeat=row.heartbeat)
        n_before = worker.dispatcher.n_tokens
        assert worker.run_next()
        assert worker.dispatcher.n_tokens == n_before, "emitted tokens are not computed again"
    generation.refresh_from_db()
    assert (generation.status, generation.text, generation.attempt) == (Status.COMPLETE, "kept", 2)
    assert_one_end(store, generation)


def test_without_redis_the_control_channel_pauses_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread around it has no pause of its own."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with override_settings(REDIS_URL="unix:///nowhere/valkey.sock"):
        worker = Worker()
        for _ in range(3):
            with pytest.raises(RedisError):
                worker.control.listen_once()
    assert len(slept) == 3


# ---- stopping ----


def test_a_stop_releases_claims_and_the_next_worker_continues_from_the_log(store: "redis.Redis[bytes]") -> None:
    sampling = SamplingParams(seed=11, temperature=0.9)
    generation = queued(say="[[delay: 15]] [[count: 60]]", params=SequenceParams(sampling=sampling))
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 20, worker))
        worker.stop(0.0)
        notifier.join()
        generation.refresh_from_db()
        assert (generation.status, generation.attempt, generation.text) == (Status.QUEUED, 0, "")
        output = "".join(token.text for token in redis_log.tail(store, generation.pk))
        assert len(output) >= 20
    run_to_end(generation)
    assert generation.text.startswith(output)
    assert generation.text == "".join(f"{number} " for number in range(1, 61))
    assert_one_end(store, generation)


def test_a_stop_waits_for_short_answers(store: "redis.Redis[bytes]") -> None:
    generation = queued(say="[[delay: 5]] [[count: 20]]")
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 1, worker))
        worker.reporter.report_once()
        worker.stop(20.0)
        assert worker.run_next() is False
        assert worker_report.last_report() is None
    generation.refresh_from_db()
    assert generation.status == Status.COMPLETE
    assert_one_end(store, generation)


def test_a_stop_while_the_model_loads_releases_claims() -> None:
    generation = queued(say=SLOW)
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(lambda: bool(worker.claims.active))
        worker.stop(0.0)
        notifier.join()
    generation.refresh_from_db()
    assert generation.status == Status.QUEUED


def test_a_stopped_worker_leaves_no_thread_and_no_process() -> None:
    before = threading.active_count()
    with running_worker() as (worker, _):
        assert eventually(lambda: worker.dispatcher.runner_pid is not None)
        pid = worker.dispatcher.runner_pid
        assert pid is not None
    assert eventually(lambda: threading.active_count() <= before, secs=5)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_worker_reports_itself() -> None:
    with running_worker() as (worker, _):
        assert eventually(lambda: worker.dispatcher.ready is not None)
        worker.reporter.report_once()
        report = last_report()
    assert report is not None
    assert (report.model_name, report.model_loaded, report.pid) == ("fake-it", True, os.getpid())
    assert report.context_size == get_tokenizer().context_size
