"""The index behind the search for texts: it finds what reading all texts finds, and forgets what was deleted."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q

from chat.models import Conversation, Message
from chat.text_index import candidates as index
from chat.text_index import filling
from inference.models import Generation
from inference.text_forms import folded
from tests.admin.builders import add_answer, add_question, conversation

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

LETTERS = "aabcdeÄäßé %_\\'\"*-\n.日本語学😀ا"
TRIGGERS = {
    *(f"chat_conversation_text_{what}" for what in ("added", "changed", "removed")),
    *(f"chat_message_text_{what}" for what in ("added", "changed", "removed")),
    "chat_message_answer_added",
    "inference_generation_text_changed",
    "inference_generation_text_removed",
}


def random_text(chooser: random.Random, n_chars: int) -> str:
    return "".join(chooser.choices(LETTERS, k=n_chars))


def stored_texts() -> dict[Any, list[str]]:
    """The texts of each conversation."""
    rows = Conversation.objects.prefetch_related("messages__generation")
    return {row.pk: [row.title, *(message.text for message in row.messages.all())] for row in rows}


def by_reading(text: str, texts: dict[Any, list[str]]) -> set[Any]:
    """The conversations that have the text, without the database."""
    needle = folded(text)
    return {pk for pk, parts in texts.items() if any(needle in folded(part) for part in parts)}


def by_search(text: str) -> set[Any]:
    return set(Conversation.objects.search(text).values_list("pk", flat=True))


def is_narrow(text: str) -> bool:
    return index.candidates(folded(text)) is not None


def has_index() -> bool:
    """SQLite has one always, PostgreSQL where its package of extensions is installed."""
    if connection.vendor == "sqlite":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm')")
        return bool(cursor.fetchone()[0])


def indexed() -> dict[str, int]:
    """The number of rows that have each trigram."""
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL keeps its indexes itself")
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIRTUAL TABLE temp.grams_seen USING fts5vocab(main, chat_text_grams, row)")
        try:
            cursor.execute("SELECT term, doc FROM temp.grams_seen")
            return dict(cursor.fetchall())
        finally:
            cursor.execute("DROP TABLE temp.grams_seen")


def test_it_finds_what_reading_finds() -> None:
    chooser = random.Random(5)
    for _ in range(12):
        row = conversation(title=random_text(chooser, chooser.randint(0, 12)))
        for _ in range(3):
            add_question(row, random_text(chooser, chooser.randint(1, 90)))
            add_answer(row, random_text(chooser, chooser.randint(0, 90)))
    texts = stored_texts()
    all_texts = [text for parts in texts.values() for text in parts if text]
    n_hits = 0
    for _ in range(80):
        text = chooser.choice(all_texts)
        start, length = chooser.randrange(len(text) + 1), chooser.choice((3, 4, 7, 20, 90))
        part = text[start : start + length] if chooser.random() < 0.8 else random_text(chooser, 4)
        part = part.upper() if chooser.random() < 0.3 else part or text
        expected = by_reading(part, texts)
        assert by_search(part) == expected, repr(part)
        assert is_narrow(part) == (has_index() and len(folded(part)) >= 3)
        n_hits += bool(expected)
    assert n_hits > 40


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("The Deadline is near", "eadline IS n"),
        ("Straße", "STRASSE"),
        ("ﬁnal", "final"),
        ("Ｄｅａｄｌｉｎｅ", "deadline"),
        ("cafe\u0301 au lait", "CAFÉ"),
        ('say "hello" AND NOT OR', '"hello" AND NOT'),
        ("100 % of it_all\\n", "% of it_all\\"),
        ("line one\nline two", "one\nline"),
        ("東京都庁前", "京都庁"),
        ("👩\u200d👩\u200d👧 family", "👩\u200d👩\u200d👧"),
        ("x" * 90 + "needle" + "y" * 90, "xxxneedleyyy"),
        ("-- NEAR(a, b) ^start *", "near(a, b) ^start *"),
    ],
)
def test_parts_of_texts(stored: str, text: str) -> None:
    _, asked, answered = rows = [conversation(title=title) for title in (stored, "a", "b")]
    add_question(conversation(title="c"), "nothing of the kind")
    add_question(asked, stored)
    add_answer(answered, stored)
    assert by_search(text) == {row.pk for row in rows} == by_reading(text, stored_texts())
    assert {message.pk for message in Message.objects.search(text)} >= {
        row.pk for row in Message.objects.filter(Q(content=stored) | Q(generation__text=stored))
    }


def test_accents_make_a_difference_as_before() -> None:
    conversation(title="resume")
    assert by_search("résumé") == set()


def test_messages_by_their_error_and_their_title() -> None:
    row = conversation(title="Harbour walls")
    question = add_question(row, "What of it?")
    answer = add_answer(row, "", status="failed", error_message="The Runner crashed twice.")
    add_answer(conversation(title="another"), "fine")
    assert set(Message.objects.search("runner CRASHED")) == {answer}
    assert set(Message.objects.search("our wall")) == {question, answer}


def test_texts_that_change() -> None:
    row = conversation(title="first title")
    message, answer = add_question(row, "first question"), add_answer(row, "first answer")
    row.title = "second title"
    row.save(update_fields=["title", "title_folded"])
    Message.objects.filter(pk=message.pk).update(content="second question", content_folded="second question")
    Generation.objects.filter(message=answer).update(text="second answer", text_folded="second answer")
    for word in ("title", "question", "answer"):
        assert by_search(f"first {word}") == set()
        assert by_search(f"SECOND {word}") == {row.pk}


def test_an_answer_that_is_written_later() -> None:
    row = conversation()
    answer = add_answer(row, "", status="running")
    assert by_search("quokka") == set()
    Generation.objects.filter(message=answer).update(text="A Quokka.", text_folded="a quokka.")
    assert by_search("quokka") == {row.pk}


def all_at_once(row: Conversation) -> None:
    generations = list(row.messages.all().generation_ids())
    row.delete()
    Generation.objects.filter(pk__in=generations).delete()


def generations_first(row: Conversation) -> None:
    Generation.objects.filter(message__conversation=row).delete()
    row.delete()


def message_by_message(row: Conversation) -> None:
    for message in list(row.messages.all()):
        message.delete()
        if message.generation:
            message.generation.delete()
    row.delete()


@pytest.mark.parametrize("delete", [all_at_once, generations_first, message_by_message])
def test_what_was_deleted_is_forgotten(delete: Callable[[Conversation], None]) -> None:
    kept = conversation(title="kept")
    before = indexed()
    row = conversation(title="Quokka title")
    add_question(row, "quokka question")
    add_answer(row, "quokka answer", error_message="quokka error")
    assert indexed()["quo"] == 3
    delete(row)
    assert indexed() == before
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM chat_text_source WHERE source <> %s", [kept.pk.hex])
        assert cursor.fetchone()[0] == 0


def test_generations_without_a_message_are_not_indexed() -> None:
    before = indexed()
    generation = Generation.objects.create(owner="local", text="quokka")
    Generation.objects.filter(pk=generation.pk).update(text="wombat", text_folded="wombat")
    generation.refresh_from_db()
    generation.save()
    assert indexed() == before


def test_a_frequent_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {conversation(title=f"meeting {number}").pk for number in range(4)}
    assert is_narrow("meeting") == has_index()
    monkeypatch.setitem(index.MOST_CANDIDATES, connection.vendor, 3)
    assert not is_narrow("meeting")
    assert by_search("meeting") == rows


@pytest.fixture
def with_rows_of_before() -> set[Any]:
    """Rows that came before their index."""
    if connection.vendor != "sqlite":
        pytest.skip("a migration makes the indexes of PostgreSQL")
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%%chat_text_grams%%'")
        triggers = dict(cursor.fetchall())
        assert set(triggers) == TRIGGERS  # a migration that makes their tables anew has to make them again
        for name in triggers:
            cursor.execute(f"DROP TRIGGER {name}")
        rows = [conversation(title=f"quokka {number}") for number in range(5)]
        for row in rows:
            add_question(row, "platypus question")
            add_answer(row, "wombat answer")
        for statement in triggers.values():
            cursor.execute(statement)
        for table in filling.COLUMNS:
            cursor.execute("INSERT INTO chat_text_pending VALUES (%s, %s)", [table, "0" * 32])
    return {row.pk for row in rows}


def test_rows_of_before_are_indexed_in_batches(with_rows_of_before: set[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH_ROWS", 2)
    words = ("quokka", "platypus", "wombat")
    assert indexed() == {}
    later = conversation(title="a platypus of later")
    n_batches = 0
    while filling.fill():
        n_batches += 1
        assert [by_search(word) for word in words] == [
            with_rows_of_before,
            with_rows_of_before | {later.pk},
            with_rows_of_before,
        ]
    assert n_batches > 9
    assert all(is_narrow(word) for word in words)
    assert [indexed()[gram] for gram in ("quo", "pla", "wom")] == [5, 6, 5]
    all_at_once(Conversation.objects.get(pk=min(with_rows_of_before)))
    assert [indexed()[gram] for gram in ("quo", "pla", "wom")] == [4, 5, 4]


def test_without_an_index_texts_are_read(with_rows_of_before: set[Any]) -> None:
    assert not is_narrow("platypus")
    assert by_search("platypus") == with_rows_of_before
