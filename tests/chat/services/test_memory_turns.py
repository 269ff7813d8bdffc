"""Turns with memories of the built-in store: owners, follow-up questions, the stored retrieval."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pytest_django import Settings

from chat.models import Retrieval
from chat.rag.indexing import indexer
from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.records import SegmentIn, TranscriptIn
from chat.rag.retrieval import retriever
from chat.rag.search import hybrid
from chat.schemas.answers import answer
from chat.services import turns
from chat.services.turns import Turn
from inference.models import Generation
from tests.chat.conversing import ANN, BOB, chat, finish, generation_of, more, prompt_of
from tests.chat.vocabularies import shown

pytestmark = pytest.mark.django_db

LINES = (
    ("Sarah", "We cannot make the first of March, the deadline is the fourteenth."),
    ("Tom", "The printer on the second floor is broken again."),
    ("Sarah", "The budget stays at forty thousand until summer."),
    ("Tom", "I would rather spend less money on travelling."),
)


@pytest.fixture
def weekly() -> None:
    """A recording for each line: lines beside a hit would come with it."""
    for number, (speaker, text) in enumerate(LINES):
        segment = SegmentIn(text=text, speaker=speaker, start_secs=5.0, end_secs=9.0, emotion="calm")
        recorded = datetime(2026, 3, 1 + number, 14, 5, tzinfo=UTC)
        transcript = TranscriptIn(job_id=f"job-{number}", title="Weekly", recorded_at=recorded, segments=(segment,))
        indexer.index_transcript(owner="", transcript=transcript)


def prepared(turn: Turn) -> Turn:
    turns.prepare_turn(generation_id=turn.generation_id)
    return turn


def body_of(turn: Turn) -> dict[str, Any]:
    return answer(turns.get_generation(caller=ANN, generation_id=turn.generation_id))


def retrieval_of(turn: Turn) -> Retrieval:
    return Retrieval.objects.get(message=turn.message_id)


def texts_of(turn: Turn) -> str:
    return " ".join(source["text"] for source in retrieval_of(turn).sources)


@pytest.mark.databases
@pytest.mark.usefixtures("weekly")
def test_memories_of_our_own_store_are_shown_and_cited() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True, rag_top_k=2))
    prompt = shown(prompt_of(turn))
    assert "Sarah, 2026-03-01 14:05" in prompt
    assert "the deadline is the fourteenth" in prompt
    n_sources = len(retrieval_of(turn).sources)
    assert generation_of(turn).params["highest_label"] == n_sources
    label = next(s["label"] for s in retrieval_of(turn).sources if "deadline" in s["text"])
    finish(turn, f"On the fourteenth [{label}].")
    body = body_of(turn)
    assert body["rag_context_used"] == n_sources
    assert [source["label"] for source in body["sources"] if source["cited"]] == [label]
    assert "rag_error" not in body


@pytest.mark.usefixtures("weekly")
def test_days_and_hours_are_those_of_the_house(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TIME_ZONE = "Pacific/Kiritimati"
    asked_for: list[RetrievalQuery] = []
    search = retriever.retrieve

    def searched(query: RetrievalQuery) -> RetrievalResult:
        asked_for.append(query)
        return search(query)

    monkeypatch.setattr(retriever, "retrieve", searched)
    turn = prepared(chat("u:When is the deadline?", use_rag=True, rag_top_k=1))
    assert [query.now.utcoffset() for query in asked_for] == [timedelta(hours=14)]
    assert "Sarah, 2026-03-02 04:05" in shown(prompt_of(turn))  # said at 14:05 UTC


def test_without_any_memory_the_answer_comes_all_the_same() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True))
    assert "Memories" not in shown(prompt_of(turn))
    assert generation_of(turn).params["highest_label"] is None
    finish(turn, "I do not know [1].")
    body = body_of(turn)
    assert (body["rag_context_used"], body["sources"]) == (0, [])
    assert "rag_error" not in body
    assert (retrieval_of(turn).n_hits, retrieval_of(turn).hits) == (0, [])


def test_a_note_of_ones_own_is_found_by_its_owner_alone() -> None:
    indexer.add_note(owner=ANN.key, title="Shopping", body="Buy oat milk for the office kitchen")
    indexer.add_note(owner="", title="House", body="The milk frother is in the office kitchen")
    mine = prepared(chat("u:milk in the office kitchen?", use_rag=True, caller=ANN))
    theirs = prepared(chat("u:milk in the office kitchen?", use_rag=True, caller=BOB))
    assert {source["title"] for source in retrieval_of(mine).sources} == {"Shopping", "House"}
    assert {source["title"] for source in retrieval_of(theirs).sources} == {"House"}


@pytest.mark.usefixtures("weekly")
def test_what_is_recorded_of_a_search() -> None:
    question = "What about the deadline, the budget, and the money for travelling?"
    turn = prepared(chat(f"u:{question}", use_rag=True, rag_top_k=3))
    retrieval = retrieval_of(turn)
    assert retrieval.query == question
    assert retrieval.filters["top_k"] == 3
    assert retrieval.latency_ms > 0
    hits = [hit for hit in retrieval.hits if not hit.get("rejected")]
    assert len(hits) == retrieval.n_hits == 3
    assert {hit["label"] for hit in hits} == {"1", "2", "3"}
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    parts = {"vector", "text", "hints", "recency", "evidence", "floor"}
    assert all(set(hit["scores"]) >= parts for hit in retrieval.hits)
    assert all("scores" not in source for source in retrieval.sources)


@pytest.mark.usefixtures("weekly")
def test_a_memory_that_an_answer_cites_may_be_deleted() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True, rag_top_k=1))
    finish(turn, "On the fourteenth [1].")
    before = body_of(turn)["sources"]
    assert [source["cited"] for source in before] == [True]
    for number in range(len(LINES)):
        assert indexer.delete_transcript(owner="", job_id=f"job-{number}")
    assert body_of(turn)["sources"] == before
    assert "deadline is the fourteenth" in texts_of(turn)
    assert "deadline is the fourteenth" in retrieval_of(turn).hits[0]["text"]


def test_what_did_not_fit_is_recorded_without_a_label() -> None:
    for number in range(6):
        indexer.add_note(owner="", title=f"Note {number}", body=f"The deadline, part {number}. " + "Nothing new. " * 60)
    turn = prepared(chat("u:deadline?", use_rag=True, rag_top_k=6))
    retrieval = retrieval_of(turn)
    labels = [hit["label"] for hit in retrieval.hits]
    assert 0 < len(retrieval.sources) == sum(label != "" for label in labels) < len(labels)
    assert all(len(hit["text"]) < 310 for hit in retrieval.hits)


@pytest.mark.usefixtures("weekly")
@pytest.mark.parametrize(
    ("first", "follow_up", "query"),
    [
        (
            "What did Sarah say about the deadline?",
            "And what did she say about the budget?",
            "And what did Sarah say about the budget?",
        ),
        (
            "Was hat Sarah zur deadline gesagt?",
            "und was hat sie zum budget gesagt?",
            "und was hat Sarah zum budget gesagt?",
        ),
    ],
)
def test_a_follow_up_finds_what_it_refers_to(first: str, follow_up: str, query: str) -> None:
    turn = prepared(chat(f"u:{first}", use_rag=True, rag_top_k=2))
    finish(turn, "The fourteenth [1].")
    second = prepared(more(turn, follow_up, use_rag=True, rag_top_k=1))
    assert retrieval_of(second).query == query
    assert retrieval_of(second).understood["refers_to"] == "Sarah"
    assert "budget" in texts_of(second)


@pytest.mark.usefixtures("weekly")
@pytest.mark.parametrize("follow_up", ["why?", "und wann war das?"])
def test_a_question_without_words_of_its_own_finds_the_same_again(follow_up: str) -> None:
    turn = prepared(chat("u:Is the printer broken?", use_rag=True, rag_top_k=1))
    finish(turn, "Yes [1].")
    second = prepared(more(turn, follow_up, use_rag=True, rag_top_k=1))
    assert "printer" in texts_of(second)
    assert retrieval_of(second).understood["refers_to"] == "Is the printer broken?"


@pytest.mark.usefixtures("weekly")
def test_later_turns_repeat_memories_that_are_gone() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True))
    so_far = prompt_of(turn) + finish(turn, "The fourteenth [1].")
    assert all(indexer.delete_transcript(owner="", job_id=f"job-{number}") for number in range(len(LINES)))
    second = prepared(more(turn, "and the budget?", use_rag=True))
    assert prompt_of(second)[: len(so_far)] == so_far
    assert retrieval_of(second).sources == []
    assert "deadline" in texts_of(turn)
    # Turns rendered anew, under another system prompt, have them, too: they are read from the stored retrieval.
    assert turn.conversation_id
    so_far = prompt_of(second) + finish(second, "Nothing is known.")
    third = more(turn, "thanks")
    assert prompt_of(third)[: len(so_far)] == so_far


def test_a_turn_that_is_not_stored_keeps_its_question_nowhere() -> None:
    indexer.add_note(owner="", title="", body="The deadline is the fourteenth")
    turn = prepared(chat("u:What of the deadline?", use_rag=True, store=False))
    assert body_of(turn)["rag_context_used"] == 1
    assert not Retrieval.objects.exists()
    assert "What of" not in str(Generation.objects.get().details)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("weekly")
def test_a_search_that_takes_too_long_costs_the_memories_not_the_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RAG_TIMEOUT_SECS = 0.1
    search = hybrid.search

    def slowly(query: RetrievalQuery) -> RetrievalResult:
        time.sleep(1)
        return search(query)

    monkeypatch.setattr(hybrid, "search", slowly)
    turn = prepared(chat("u:When is the deadline?", use_rag=True))
    finish(turn, "I do not know.")
    body = body_of(turn)
    assert (body["response"], body["rag_context_used"]) == ("I do not know.", 0)
    assert body["rag_error"] == "the memories could not be searched within 0.1 s"


@pytest.mark.usefixtures("weekly")
def test_what_a_model_does_not_cite_is_attributed() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True, rag_top_k=1))
    before = body_of(turn)
    assert before["annotations"] == []
    text = "I looked it up. The deadline is the fourteenth."
    finish(turn, text)
    body = body_of(turn)
    [annotation] = body["annotations"]
    assert text[annotation["start"] : annotation["end"]] == "The deadline is the fourteenth."
    assert [source["cited"] for source in body["sources"]] == [True]
    assert annotation["label"] == body["sources"][0]["label"]
    assert body["message"] == text


@pytest.mark.usefixtures("weekly")
def test_what_no_source_has_is_not_attributed() -> None:
    turn = prepared(chat("u:When is the deadline?", use_rag=True, rag_top_k=1))
    finish(turn, "The deadline is the fifteenth, said Peter.")
    body = body_of(turn)
    assert body["annotations"] == []
    assert not any(source["cited"] for source in body["sources"])
