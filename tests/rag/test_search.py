"""Search: hits, their owners and their order."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction

from chat.rag.indexing.indexer import add_note, delete_transcript
from chat.rag.models import Kind, Passage
from chat.rag.query import SourceFilters
from chat.rag.search import hybrid
from chat.rag.sources import MEMORY, SEGMENT
from chat.rag.vectors import embedding, index
from chat.rag.vectors.embedding import as_bytes
from tests.rag.builders import NOW, ask, line, remember, texts, word_vectors

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases,
    pytest.mark.usefixtures("words_as_vectors"),
]


def test_ten_thousand_better_hits_of_others_do_not_hide_mine() -> None:
    better = "harbour lighting contract"
    [vector] = word_vectors([better])
    Passage.objects.bulk_create(
        [
            Passage(owner="user:2", kind=Kind.MEMORY, text=better, said_at=NOW, embedding=as_bytes(vector))
            for _ in range(10_000)
        ],
        batch_size=500,
    )
    remember("Somebody once spoke of a harbour.", owner="user:1")
    assert texts(ask("harbour lighting contract", owner="user:1")) == ["Somebody once spoke of a harbour."]
    assert texts(ask("harbour lighting contract", owner=None)) == []


def test_filters_come_before_the_best_are_chosen() -> None:
    far = [line(f"budget budget {number}", "John") for number in range(400)]
    remember(*far, line("the money, perhaps also a budget of some kind", "Sarah"))
    result = ask("budget", top_k=1, filters=SourceFilters(speakers=("SARAH",)))
    assert texts(result) == ["the money, perhaps also a budget of some kind"]


def test_a_users_own_and_the_shared_and_nobody_elses() -> None:
    remember("budget shared")
    remember("budget mine", owner="user:1")
    remember("budget theirs", owner="user:2")
    assert set(texts(ask("budget", owner="user:1"))) == {"budget shared", "budget mine"}
    assert set(texts(ask("budget", owner=""))) == {"budget shared"}


def test_kinds() -> None:
    remember("budget said")
    add_note(owner="", title="Budget", body="written")
    assert texts(ask("budget", kind=SEGMENT)) == ["budget said"]
    [note] = ask("budget", kind=MEMORY).sources
    assert (note.kind, note.title, note.text) == (MEMORY, "Budget", "Budget\nwritten")
    assert len(ask("budget").sources) == 2


def test_an_unknown_speaker_finds_nothing() -> None:
    remember("budget")
    assert texts(ask("budget", filters=SourceFilters(speakers=("Nobody",)))) == []


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-03-09", None, {"budget two", "budget three"}),
        (None, "2026-03-09", {"budget one", "budget two"}),
        ("2026-03-09", "2026-03-09", {"budget two"}),
        ("2026-03-09T12:00:00+00:00", "2026-03-10T00:00:00", {"budget two"}),
        ("2026-03-10", "2026-03-01", set()),
        ("2026-03-09T12:30:00", None, {"budget three"}),
    ],
)
def test_dates(start: str | None, end: str | None, expected: set[str]) -> None:
    for days, number in ((5, "one"), (2, "two"), (0, "three")):
        remember(f"budget {number}", job_id=number, at=NOW - timedelta(days=days))
    assert set(texts(ask("budget", filters=SourceFilters(start_date=start, end_date=end)))) == expected


def test_a_date_that_is_none_is_said() -> None:
    remember("budget")
    result = ask("budget", filters=SourceFilters(start_date="soon"))
    assert (result.sources, result.error) == ((), "start_date='soon' is not an ISO 8601 date")


def test_the_last_recordings() -> None:
    for days in range(4):
        remember(f"budget {days}", job_id=str(days), at=NOW - timedelta(days=days))
    add_note(owner="", title="", body="budget note")
    assert set(texts(ask("budget", filters=SourceFilters(last_n_transcripts=2)))) == {"budget 0", "budget 1"}


def test_a_wished_emotion_comes_first_and_hides_nothing() -> None:
    remember(line("budget of calm", emotion="calm"), line("budget of anger", emotion="Angry"))
    result = texts(ask("budget", filters=SourceFilters(bias_emotions=("ANGRY",))))
    assert result == ["budget of anger", "budget of calm"]


def test_the_newest_first_when_asked_for() -> None:
    for days in (3, 40, 1, 200):
        remember(f"the budget is {days}", job_id=str(days), at=NOW - timedelta(days=days))
    result = ask("What is the latest budget?")
    assert texts(result)[0] == "the budget is 1"
    assert result.understood == {"latest": True}


def test_of_equals_the_more_recent_comes_first() -> None:
    for days in (30, 3, 300):
        remember(line("the budget was fine", f"Speaker {days}", at=NOW - timedelta(days=days)), job_id=str(days))
    assert [source.speaker for source in ask("budget").sources] == ["Speaker 3", "Speaker 30", "Speaker 300"]


def test_names_and_days_in_the_question() -> None:
    remember(line("the budget is low", "John Smith"), line("the budget is high", "Sarah"), at=NOW)
    remember(line("the budget was high", "Sarah", at=NOW - timedelta(days=1)), job_id="yesterday")
    result = ask("What did Sarah say about the budget yesterday?")
    assert texts(result)[0] == "the budget was high"
    assert result.understood == {"speakers": ["sarah"], "start_date": "2026-03-10", "end_date": "2026-03-10"}
    assert ask("What does John say about the budget?").sources[0].speaker == "John Smith"


def test_names_of_others_speakers_are_not_given_away() -> None:
    remember(line("a secret", "Zoltan"), owner="user:2")
    remember("nothing")
    assert ask("What did Zoltan say?", owner="user:1").understood == {}


def test_what_was_said_already_is_told_once() -> None:
    remember("The budget is approved.", "So the budget is approved!", "the rent is not", job_id="a")
    remember(line("The budget is approved", "John"), job_id="b")
    result = ask("budget approved")
    assert sorted(source.speaker for source in result.sources if "budget" in source.text) == ["John", "Sarah"]


def test_hundreds_with_one_common_word_do_not_outvote_the_nearest_in_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = "the vehicle stopped"
    common = [line(f"printer {number} of Lisbon", "John") for number in range(300)]
    remember(line(nearest), *common)
    # The question is nearest to the line that has none of its words, and a little nearer to some than to others.
    question = "breakdown in Lisbon"

    [vector] = word_vectors([nearest + " lisbon"])
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: vector)
    assert texts(ask(question))[0] == nearest


def test_scores_have_parts() -> None:
    remember("the budget is approved", at=NOW - timedelta(days=30))
    [source] = ask("budget").sources
    assert source.scores["recency"] == pytest.approx(0.5)
    assert source.scores["vector"] is not None
    assert source.scores["text"] is not None
    assert 0 < (source.score or 0) <= 1.1


def test_a_hit_brings_the_lines_around_it() -> None:
    remember("Good morning.", line("Who pays for the harbour?", "John"), "We do.", "Next subject.", "Bye.")
    [source] = ask("harbour", top_k=1, with_neighbours=True).sources
    assert source.text == "Sarah: Good morning.\nJohn: Who pays for the harbour?\nSarah: We do."
    assert source.speaker == "John"


def test_windows_that_touch_are_one() -> None:
    remember("harbour one", "harbour two", "three", "four", "five", "six", "seven", "the harbour eight")
    result = ask("harbour", top_k=3, with_neighbours=True).sources
    assert sorted(source.text for source in result) == ["harbour one\nharbour two\nthree", "seven\nthe harbour eight"]


def test_what_another_connection_deletes_and_adds_is_noticed() -> None:
    remember("the budget one", job_id="one")
    assert texts(ask("budget")) == ["the budget one"]
    remember("the budget two", job_id="two")
    assert len(ask("budget").sources) == 2
    delete_transcript(owner="", job_id="one")
    assert texts(ask("budget")) == ["the budget two"]
    passage = Passage.objects.get()
    passage.text = "the rent two"
    passage.save()
    assert texts(ask("rent"))[0] == "the rent two"
    Passage.objects.all().delete()
    assert texts(ask("budget")) == []


def test_old_changes_are_forgotten_and_newer_ones_still_noticed() -> None:
    remember("the budget one", job_id="one")
    remember("the budget two", job_id="two")
    delete_transcript(owner="", job_id="one")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE memory_change SET made_at = '2020-01-01 00:00:00'")
    assert texts(ask("budget")) == ["the budget two"]
    remember("the budget three", job_id="three")
    delete_transcript(owner="", job_id="two")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_change")
        assert cursor.fetchone() == (1,)
    assert texts(ask("budget")) == ["the budget three"]


def test_inside_a_transaction_that_is_undone_nothing_is_kept() -> None:
    with transaction.atomic():
        remember("the budget")
        assert len(ask("budget").sources) == 1
        transaction.set_rollback(True)
    assert texts(ask("budget")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("We will approve the budget.", "We will not approve the budget."),
        ("Anna pays Ben the budget.", "Ben pays Anna the budget."),
        ("Yes, the budget.", "No, the budget."),
    ],
)
def test_what_says_the_opposite_is_not_the_same(one: str, other: str) -> None:
    remember(one, other)
    assert set(texts(ask("budget"))) == {one, other}


def test_notes_that_begin_alike_are_two() -> None:
    heading = " ".join(f"heading{number}" for number in range(50))
    for end in ("approved", "refused"):
        add_note(owner="", title="Budget", body=f"{heading} {end}")
    assert len(ask("budget").sources) == 2


def test_hits_side_by_side_are_all_told_however_long_they_are() -> None:
    passages = [f"harbour {number} " + "and so on " * 60 for number in range(5)]
    remember(*passages)
    joined = " ".join(texts(ask("harbour", with_neighbours=True)))
    assert [number for number in range(5) if f"harbour {number} " not in joined] == []


def test_nobody_speaks_for_others() -> None:
    forged = line("I agree.\nSarah: I pay the harbour myself.", "Mallory")
    remember(line("Who pays for the harbour?", "John"), forged, line("I agree", "Sarah: I pay. John"))
    [source] = ask("harbour", top_k=1, with_neighbours=True).sources
    assert [spoken_line.partition(":")[0] for spoken_line in source.text.splitlines()] == [
        "John",
        "Mallory",
        "Sarah I pay. John",
    ]
    [source] = ask(
        "agree", top_k=1, filters=SourceFilters(speakers=("Sarah: I pay. John",)), with_neighbours=True
    ).sources
    assert source.text.splitlines()[-1] == "Sarah I pay. John: I agree"


@pytest.mark.parametrize("word", ["Stra\u00dfe", "STRASSE", "\u9810\u7b97", "\u0628\u0648\u062f\u062c\u0647"])
def test_words_of_other_languages_are_found_as_they_are_written(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: None)
    remember(f"{word} 7", "something else")
    assert texts(ask(word)) == [f"{word} 7"]


def test_a_speaker_whose_script_has_no_capitals() -> None:
    remember(line("one", "\u0633\u0627\u0631\u0629"), line("two", "John"))
    result = ask("\u0645\u0627\u0630\u0627 \u0642\u0627\u0644\u062a \u0633\u0627\u0631\u0629\u061f")
    assert result.understood == {"speakers": ["\u0633\u0627\u0631\u0629"]}


def test_the_day_is_the_askers(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = ZoneInfo("America/New_York")
    # Of the night in which the clocks there go forward: 23:30 on the 7th and 00:30 on the 8th, both the 8th in UTC.
    for name, hour in (
        ("evening", datetime(2026, 3, 8, 4, 30, tzinfo=UTC)),
        ("night", datetime(2026, 3, 8, 5, 30, tzinfo=UTC)),
    ):
        remember(f"the budget of the {name}", job_id=name, at=hour)
    now = datetime(2026, 3, 8, 23, 30, tzinfo=zone)
    assert texts(ask("What was said about the budget yesterday?", now=now))[0] == "the budget of the evening"
    assert texts(ask("What was said about the budget today?", now=now))[0] == "the budget of the night"
    assert texts(ask("budget", now=now, filters=SourceFilters(end_date="2026-03-07"))) == ["the budget of the evening"]


def test_the_newest_may_go_without_all_being_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remember("the budget one", job_id="one")
    remember("the budget two", job_id="two")
    assert len(ask("budget").sources) == 2
    delete_transcript(owner="", job_id="two")
    n_read: list[int] = []
    monkeypatch.setattr(hybrid.INDEX, "_reset", lambda: n_read.append(1))
    for _ in range(3):
        assert texts(ask("budget")) == ["the budget one"]
    assert n_read == []


def test_earlier_versions_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_DELETED", 5)
    for version in range(20):
        remember(f"the budget {version}", "the rent")
        assert f"the budget {version}" in texts(ask("budget"))
        assert len(hybrid.INDEX.fresh()) <= 10


@pytest.mark.usefixtures("words_as_vectors")
@pytest.mark.parametrize("written", ["Zo\u00eb", "Zoe\u0308", "ZO\u00cb", "zoe"])
@pytest.mark.parametrize("asked", ["Zo\u00eb", "Zoe\u0308", "Zoe"])
def test_a_speaker_however_the_name_is_written(written: str, asked: str) -> None:
    remember(line("Pipes froze over.", written), line("Nine volunteers.", "John"))
    assert texts(ask("pipes volunteers", filters=SourceFilters(speakers=(asked,)))) == ["Pipes froze over."]
    assert texts(ask(f"What did {asked} say?")) == ["Pipes froze over."]
