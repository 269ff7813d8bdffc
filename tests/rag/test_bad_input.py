"""Input that nobody should send: nothing raises, nothing is lost beside it."""

import pytest

from chat.rag.indexing.indexer import add_note, index_transcript
from chat.rag.models import Segment
from chat.rag.records import SegmentIn, TranscriptIn
from tests.rag.builders import NOW, ask, remember, texts

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases,
    pytest.mark.usefixtures("words_as_vectors"),
]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "?!",
        "\0",
        "\ud800",
        '"',
        "budget'); DROP TABLE memory_passage; --",
        'NEAR("a" "b", 2)',
        "text: budget",
        "budget AND OR NOT (",
        "^budget* + -",
        "budget & | ! <-> :*",
        "\\",
        "_ __",
        "a" * 1_000_000,
        "\u9810" * 2_000,
        "\U0001f600" * 2_000,
        "budget " * 100_000,
        "預算 بودجه бюджет ½ ²",
        "%s %(x)s {0}",
        "in the last 999 years",
        "on 99 February 2026 and 2026-13-45",
        "before 0001-01-01",
        "9999-12-31",
        # Letters that are "s" and "i" without regard to case.
        "the budget of 3 \u017feptember 2026",
        "\u017fince 2026-03-01",
        "s\u0130nce yesterday, unt\u0130l june",
        "on \u017funday, 3 year\u017f ago, thi\u017f week",
    ],
)
def test_any_question_is_answered(query: str) -> None:
    remember("the budget")
    assert ask(query).error == ""


@pytest.mark.parametrize(("top_k", "n_expected"), [(-5, 0), (0, 0), (1, 1), (10_000, 30)])
def test_how_many(top_k: int, n_expected: int) -> None:
    remember(*(f"budget {number}" for number in range(30)))
    assert len(ask("budget", top_k=top_k).sources) == n_expected


def test_a_segment_of_a_megabyte_is_found_by_its_end() -> None:
    remember("the rent is due. " * 60_000 + "Only here the harbour is named.")
    [source] = ask("harbour", top_k=1, with_neighbours=True).sources
    assert "Only here the harbour is named." in source.text
    assert len(source.text) <= 1_000


def test_a_word_of_a_megabyte() -> None:
    remember("x" * 1_000_000, "the budget")
    assert "the budget" in texts(ask("budget"))


def test_segments_without_text_are_left_out() -> None:
    remember("", "  \n", "the budget", "\0")
    assert list(Segment.objects.values_list("position", "text")) == [(2, "the budget")]


def test_a_recording_without_segments() -> None:
    assert remember().segments.count() == 0


def test_what_databases_refuse_is_taken_out() -> None:
    segment = SegmentIn(
        text="the \0budget\ud800",
        speaker="S\0\ud800" + "x" * 500,
        start_secs=float("nan"),
        end_secs=float("inf"),
        emotion="e" * 500,
        emotion_scores={"\0a": float("nan"), "\ud800": [1, {"b": "\0"}]},
    )
    index_transcript(
        owner="", transcript=TranscriptIn(job_id="j", segments=(segment,), full_text="\0", title="t" * 999)
    )
    row = Segment.objects.get()
    assert (row.text, row.start_secs, row.end_secs) == ("the budget?", None, None)
    assert row.emotion_scores == {"a": None, "?": [1, {"b": ""}]}
    assert len(ask("budget").sources) == 1


def test_a_start_of_thousands_of_years() -> None:
    segment = SegmentIn(text="the budget", start_secs=1e300)
    index_transcript(owner="", transcript=TranscriptIn(job_id="j", segments=(segment,), recorded_at=NOW))
    assert Segment.objects.get().said_at == NOW


def test_a_note_without_words() -> None:
    add_note(owner="", title="", body="\0 ")
    assert ask("budget").sources == ()
