"""Sums by hour and day: exactly once, whatever ends, is deleted or runs in parallel meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.models import Conversation, Message, Rollup, RollupProgress, Span
from chat.services.rollups import advancing
from chat.services.rollups.figures import BUCKET_FACTOR, Figures, add, largest, observe, percentile
from inference.models import Generation, HandOver, LeaseRecord
from tests.admin.builders import SOURCE, add_answer, add_question, add_sources, conversation

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=30)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def exchange(minutes: float, *, to: Conversation | None = None, **columns: Any) -> Message:  # noqa: ANN401
    """Store a question and its answer as of so many minutes after noon."""
    chat = to or conversation()
    question, answer = add_question(chat), add_answer(chat, **columns)
    Message.objects.filter(pk__in=[question.pk, answer.pk]).update(created_at=at(minutes))
    Generation.objects.filter(message=answer).update(created_at=at(minutes), finished_at=at(minutes))
    return answer


def advance(now: datetime = LATER) -> None:
    while advancing.advance(now):
        pass


def figures(kind: str, start: datetime = NOON, span: str = Span.HOUR) -> dict[str, Any]:
    row = Rollup.objects.filter(span=span, starts_at=start, kind=kind).first()
    return row.figures if row else {}


class TestFigures:
    @pytest.mark.parametrize("values", [[5.0], [1.0, 2.0, 3.0, 4.0], [10.0 * n for n in range(1, 200)], [0.01, 1e7]])
    @pytest.mark.parametrize("share", [0.5, 0.95])
    def test_a_percentile_is_near_the_true_one(self, values: list[float], share: float) -> None:
        histogram: Figures = {}
        for value in values:
            observe(histogram, value)
        true = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
        near = percentile(histogram, share)
        assert near is not None
        assert near == pytest.approx(max(true, 0.5), rel=BUCKET_FACTOR - 1)

    def test_of_nothing_there_is_none(self) -> None:
        assert percentile({}, 0.5) is None

    def test_groups_are_added_by_name(self) -> None:
        total: Figures = {"n": 1, "by": {"a": 1}}
        add(total, {"n": 2, "by": {"a": 2, "b": 3}, "new": {"x": 1}})
        assert total == {"n": 3, "by": {"a": 3, "b": 3}, "new": {"x": 1}}

    def test_the_largest_of_a_group(self) -> None:
        assert list(largest({"a": 1, "b": 5, "c": 3}, 2)) == ["b", "c"]


class TestSums:
    def test_what_an_hour_holds(self) -> None:
        exchange(5)
        exchange(6, status="failed", error_code="runner_crashed", timings={"queue": 0.0, "first_token": 0.0})
        exchange(7, status="interrupted", error_code="timeout")
        exchange(8, status="interrupted", devices=[{"device": "cpu", "tokens": 10}, {"device": "gpu", "tokens": 30}])
        exchange(9, finish_reason="length")
        exchange(65)
        advance()
        hour = figures("generations")
        assert hour["n"] == 5
        assert hour["outcomes"] == {"complete": 1, "failed": 1, "timed_out": 1, "stopped": 1, "cut": 1}
        assert (hour["tokens_in"], hour["tokens_cached"], hour["tokens_out"]) == (6000, 4000, 200)
        assert hour["tokens_by_device"] == {"cpu": 170, "gpu": 30}
        assert sum(hour["first_token_ms"].values()) == 4
        assert percentile(hour["first_token_ms"], 0.5) == pytest.approx(500, rel=0.1)
        assert percentile(hour["tokens_per_s"], 0.5) == pytest.approx(20, rel=0.1)
        assert sum(hour["queue_ms"].values()) == 5
        assert figures("chat") == {"questions": 5, "conversations": 5}
        assert figures("generations", at(60))["n"] == 1
        assert figures("generations", NOON.replace(hour=0), Span.DAY)["n"] == 6

    def test_a_second_question_is_no_second_conversation_and_a_fork_neither(self) -> None:
        chat = conversation()
        exchange(1, to=chat)
        exchange(2, to=chat)
        fork = conversation(forked_from=chat, forked_at=2)
        copy = add_question(fork)
        Message.objects.filter(pk=copy.pk).update(created_at=at(3))
        advance()
        assert figures("chat") == {"questions": 2, "conversations": 1}

    def test_retrievals_by_the_time_their_answer_ended(self) -> None:
        document = SOURCE | {"kind": "document", "label": "2"}
        uncited = SOURCE | {"label": "3", "text": "Bananas are yellow.", "doc_id": "10"}
        add_sources(exchange(1, text="On the 14th [1] [2]."), SOURCE, document, uncited)
        empty = add_sources(exchange(2, text="I do not know."), n_hits=0)
        add_sources(exchange(3, text="No."), n_hits=0, error="timed out")
        advance()
        hour = figures("retrievals")
        expected = {"n": 3, "failed": 1, "empty": 1, "retrieved": 7, "shown": 2, "cited": 1}
        assert {name: hour[name] for name in expected} == expected
        assert hour["sources"] == {"transcript_segment:9": 1}
        assert hour["empty_ids"] == {str(empty.pk): 1}

    def test_no_text_and_no_user_is_kept(self) -> None:
        chat = conversation("user:4711", title="Private title")
        add_sources(exchange(1, to=chat, text="Secret words [1]."), SOURCE, query="private query")
        advance()
        kept = str(list(Rollup.objects.values_list("figures", flat=True)))
        for text in ("4711", "Private", "Secret", "private", "Sarah", "Weekly", "cannot"):
            assert text not in kept


class TestGpu:
    def test_a_lease_over_three_hours_is_divided(self) -> None:
        LeaseRecord.objects.create(lease_epoch=1, requester="diarisation", acquired_at=at(50), ended_at=at(130))
        advance()
        held = [figures("gpu", at(60 * n))["held_secs"]["diarisation"] for n in range(3)]
        assert held == [600.0, 3600.0, 600.0]

    def test_a_session_counts_once_and_its_time_only_with_another_coordinator(self) -> None:
        for coordinator in ("builtin", "v2"):
            HandOver.objects.create(
                started_at=at(10),
                device_from="cpu",
                device_to="gpu",
                waited_ms=60_000,
                loaded_ms=900,
                held_secs=90,
                taken_secs=30,
                ended_because="idle",
                coordinator=coordinator,
            )
        advance()
        advance()
        hour = figures("gpu")
        assert hour["sessions"] == 2
        assert hour["withheld_secs"] == 60
        assert hour["held_secs"] == {"gemma-service": 90.0}
        assert sum(hour["loaded_ms"].values()) == 2
        assert "yield_ms" not in hour


class TestProgress:
    def test_what_is_summed_up_stays_when_its_rows_are_deleted(self) -> None:
        answer = exchange(1)
        advance(at(10))
        answer.conversation.delete()
        Generation.objects.all().delete()
        exchange(20)
        advance()
        assert figures("generations")["n"] == 2

    def test_rows_of_the_last_moments_wait(self) -> None:
        exchange(1)
        advance(at(1) + timedelta(seconds=advancing.SETTLE_SECS / 2))
        assert figures("generations") == {}
        advance(at(2))
        assert figures("generations")["n"] == 1

    def test_in_any_steps_the_sums_are_the_same(self) -> None:
        for minute in range(0, 130, 7):
            exchange(minute)
        for until in (3, 3, 59.9, 60, 61, 128):
            advance(at(until))
        advance()
        in_steps = list(Rollup.objects.order_by("span", "starts_at", "kind").values_list("kind", "figures"))
        Rollup.objects.all().delete()
        RollupProgress.objects.all().delete()
        advance()
        assert list(Rollup.objects.order_by("span", "starts_at", "kind").values_list("kind", "figures")) == in_steps
        assert sum(row.figures["n"] for row in Rollup.objects.filter(kind="generations", span="day")) == 19

    def test_one_that_is_killed_adds_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exchange(1)
        store = advancing._store

        def killed(sums: Any) -> None:  # noqa: ANN401
            store(sums)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(advancing, "_store", killed)
            with pytest.raises(KeyboardInterrupt):
                advance()
        assert not Rollup.objects.exists()
        advance()
        assert figures("generations")["n"] == 1

    def test_of_two_processes_one_adds_a_slice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exchange(1)
        read = advancing._add_slice

        def overtaken(*args: Any) -> None:  # noqa: ANN401
            read(*args)
            with monkeypatch.context() as patched:
                patched.setattr(advancing, "_add_slice", read)
                advance()

        with monkeypatch.context() as patched:
            patched.setattr(advancing, "_add_slice", overtaken)
            assert advancing.advance(LATER)
        assert figures("generations")["n"] == 1

    def test_a_long_pause_costs_few_queries(self) -> None:
        exchange(1)
        exchange(60 * 24 * 365)
        with CaptureQueriesContext(connection) as queries:
            advance(LATER + timedelta(days=400))
        assert Rollup.objects.filter(kind="generations", span="hour").count() == 2
        assert len(queries) < 80

    def test_without_new_rows_nothing_is_written(self) -> None:
        exchange(1)
        advance()
        before = RollupProgress.objects.get()
        assert not advancing.advance(LATER + timedelta(days=1))
        assert RollupProgress.objects.get().until == before.until
