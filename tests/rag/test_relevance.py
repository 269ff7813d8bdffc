"""Unrelated questions find nothing. With real vectors, since the relevance threshold was measured on them."""

import pytest
from django.test import override_settings

from chat.rag.indexing.indexer import add_note
from chat.rag.search.terms import names_in
from chat.rag.vectors import embedding
from tests.rag.builders import ask, line, remember, texts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

NOTES = (
    "The dentist moved my appointment to half past nine on the fourth.",
    "Zaverin-42 is the code name of the new warehouse in Ghent.",
    "Grandmother likes lilies and cannot stand roses.",
)


@pytest.fixture
def _three_notes() -> None:
    for body in NOTES:
        add_note(owner="", title="", body=body)


@pytest.mark.usefixtures("_three_notes")
@pytest.mark.parametrize(
    "question",
    [
        "Explain quantum computing",
        "How do I sort a list in Python?",
        "What is the capital of France?",
        "Write a poem about the sea",
        "Hello!",
        "\N{THUMBS UP SIGN}",
    ],
)
def test_a_question_about_something_else_brings_nothing(question: str) -> None:
    assert texts(ask(question)) == []
    assert len(texts(ask(question, only_related=False))) == 3


@pytest.mark.usefixtures("_three_notes")
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("When is my appointment with the doctor for my teeth?", 0),
        ("zaverin-42", 1),
        ("Did the people of the accounting department mention Zaverin to anyone upstairs?", 1),
        ("Which flowers should I buy for granny?", 2),
    ],
)
def test_what_is_near_in_meaning_or_has_the_name_is_found(question: str, expected: int) -> None:
    assert texts(ask(question))[0] == NOTES[expected]


def test_a_question_that_only_points_finds_what_it_points_to() -> None:
    remember(line("Pipes froze over.", "Sarah"), line("Nine volunteers.", "John"))
    assert texts(ask("What did Sarah say today?")) == ["Pipes froze over."]
    assert set(texts(ask("What is the latest?"))) == {"Pipes froze over.", "Nine volunteers."}
    assert texts(ask("What did Sarah say about quantum computing?")) == []


@pytest.mark.usefixtures("_three_notes")
def test_the_floor_can_be_moved() -> None:
    with override_settings(RAG_MIN_SIMILARITY=-1.0):
        assert len(texts(ask("Explain quantum computing"))) == 3
    with override_settings(RAG_MIN_SIMILARITY=1.0):
        assert texts(ask("Which flowers should I buy for granny?")) == []


def test_without_vectors_words_have_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: None)
    monkeypatch.setattr(embedding, "embed_passages", lambda inputs, encoding: None)
    add_note(owner="", title="", body=NOTES[2])
    assert texts(ask("Which flowers does my old grandmother like best?")) == [NOTES[2]]
    assert texts(ask("Explain quantum computing")) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Who met Aisha? Somebody from Oslo.", {"aisha", "oslo"}),
        ("What is K9 and 4711, what 17?", {"4711"}),
        ("the b2b deal", {"b2b"}),
        ("IT IS LOUD HERE", set()),
        ("Ask me. Then What?", set()),
    ],
)
def test_names(text: str, names: set[str]) -> None:
    assert names_in(text) == names
