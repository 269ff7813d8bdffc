"""Kind: case folding left to the database. One search on every database, in step with renames and new messages."""

import importlib

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from chat.models import Conversation, Message, Retrieval
from chat.rag.models import Note, Segment, Transcript
from chat.services import conversations
from chat.services.turns import Turn
from inference.models import Generation
from inference.text_forms import answer_digest, folded
from tests.chat.conversing import ANN, chat, finish, more

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

MIGRATIONS = [
    "inference.migrations.0008_folded_texts",
    "chat.migrations.0008_folded_texts",
    "chat.migrations.0010_dialogue_digests",
    "chat.rag.migrations.0004_folded_notes",
    "chat.rag.migrations.0005_folded_transcripts",
]
CASES = [
    ("Über das Café", "über"),
    ("Über das Café", "CAFE\u0301"),
    ("Der Weg zur STRASSE", "straße"),
    ("Ελλάδα", "ΕΛΛΆΔΑ"),
    ("ПРИВЕТ, мир", "привет"),
    ("ＡＢＣ full width", "abc"),
    ("half width ｶﾞｲﾄﾞ", "ガイド"),
    ("100 % of it_all", "% of it_"),
]


def answered(text: str, answer: str, system: str = "") -> Turn:
    turn = chat(*([f"s:{system}"] if system else []), f"u:{text}")
    finish(turn, answer)
    return turn


def hits(text: str) -> set[object]:
    return set(conversations.conversations_of(ANN).search(text).values_list("pk", flat=True))


@pytest.mark.parametrize(("written", "searched"), CASES)
@pytest.mark.parametrize("place", ["title", "question", "answer", "later question"])
def test_a_text_is_found_however_it_is_written(written: str, searched: str, place: str) -> None:
    first = chat("u:" + (written if place == "question" else "plain"))
    finish(first, written if place == "answer" else "Fine.")
    chat("u:another one")
    if place == "title":
        assert first.conversation_id
        conversations.update_conversation(caller=ANN, conversation_id=first.conversation_id, title=written)
    if place == "later question":
        more(first, written)
    assert hits(searched) == {first.conversation_id}
    assert hits(searched + "x") == set()


def test_a_former_title_is_found_no_more() -> None:
    made = conversations.create_conversation(caller=ANN, title="Über alles")
    conversations.update_conversation(caller=ANN, conversation_id=made.pk, title="Unter uns")
    assert hits("über") == set()
    assert hits("UNTER") == {made.pk}


def test_a_conversation_with_many_hits_comes_once() -> None:
    first = answered("Müll", "MÜLL")
    finish(more(first, "müll"), "mÜLL")
    assert list(conversations.conversations_of(ANN).search("müll").values_list("pk", flat=True)) == [
        first.conversation_id
    ]


def test_rows_of_earlier_versions_are_migrated() -> None:
    answered("Über das Café", "ÄHNLICH", "Sei nett.")
    Note.objects.create(owner=ANN.key, title="Öl", body="ÄPFEL")
    recording = Transcript.objects.create(owner=ANN.key, job_id="j", title="ÜBUNG")
    Segment.objects.create(transcript=recording, position=0, text="ÄPFEL", speaker="JÖRG", said_at=timezone.now())
    Retrieval.objects.create(message=Message.objects.latest("position"), query="WO SIND DIE ÄPFEL?")
    rows: dict[type[Model], list[str]] = {
        Conversation: ["title_folded"],
        Message: ["content_folded", "content_digest", "history_digest"],
        Generation: ["text_folded", "text_digest", "dialogue_digest"],
        Note: ["title_folded", "body_folded"],
        Transcript: ["title_folded"],
        Segment: ["text_folded", "speaker_folded"],
        Retrieval: ["query_folded"],
    }

    def stored() -> list[list[tuple[object, ...]]]:
        return [list(model._default_manager.order_by("pk").values_list(*columns)) for model, columns in rows.items()]

    before = stored()
    for model, columns in rows.items():
        model._default_manager.update(**dict.fromkeys(columns, ""))
    for name in MIGRATIONS:
        importlib.import_module(name).derive(apps, None)
    importlib.import_module("chat.migrations.0010_dialogue_digests").derive_queries(apps, None)
    assert stored() == before


def test_every_row_is_in_step_after_a_conversation() -> None:
    first = chat("u:Ärger", "a:ÜBEL", "u:Öl")
    finish(first, "ÄÖÜ")
    fork = chat(conversation_id=first.conversation_id, message="ÖL ANDERS", replaces=first.message_id)
    finish(fork, "ß")
    assert all(row.title_folded == folded(row.title) for row in Conversation.objects.all())
    for row in Message.objects.all():
        assert (row.content_folded, row.content_digest) == (folded(row.content), answer_digest(row.content))
    for generation in Generation.objects.all():
        assert generation.text_folded == folded(generation.text)


@pytest.mark.parametrize(
    ("page", "searched"),
    [
        ("chat/conversation", "ÜBER"),
        ("chat/message", "über"),
        ("chat/message", "ähnlich"),
        ("chat/retrieval", "äpfel"),
        ("chat/retrieval", "WO SIND die A\u0308PFEL"),
        ("chat/retrieval", "über das"),
        ("memory/note", "äpfel"),
        ("memory/transcript", "übung"),
        ("memory/transcript", "Äpfel der STRASSE"),
        ("memory/transcript", "jörg"),
        ("memory/transcript", "ｊo\u0308rg"),
        ("memory/transcript", "JOB-7"),
    ],
)
def test_the_admin_searches_alike(page: str, searched: str) -> None:
    answered("Über das Café", "ÄHNLICH")
    Note.objects.create(owner=ANN.key, title="Öl", body="ÄPFEL")
    recording = Transcript.objects.create(owner=ANN.key, job_id="job-7", title="ÜBUNG")
    line = {"text": "die ÄPFEL der Straße", "speaker": "JÖRG", "said_at": timezone.now()}
    Segment.objects.create(transcript=recording, position=0, **line)
    Retrieval.objects.create(message=Message.objects.latest("position"), query="WO SIND DIE ÄPFEL?")
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for text, is_there in ((searched, True), (f"{searched}x", False)):
        response = client.get(f"/admin/{page}/", {"q": text})
        assert response.status_code == 200
        assert bool(response.context["cl"].result_count) is is_there
