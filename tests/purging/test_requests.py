"""What a deletion asks for, by which door it comes, and that it asks in its own transaction."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from chat.access.callers import Caller
from chat.models import Conversation, Message
from chat.rag.indexing import indexer
from chat.rag.models import Note, Transcript
from chat.rag.records import SegmentIn, TranscriptIn
from chat.services import conversations
from inference.models import Generation, PurgeRequest
from tests.admin.builders import SOURCE, add_answer, add_question, add_sources, conversation, operator

pytestmark = [pytest.mark.django_db, pytest.mark.databases]


def talk(owner: str = "local", title: str = "The secret plan") -> tuple[Conversation, Message]:
    made = conversation(owner, title=title)
    add_question(made)
    return made, add_answer(made, "Tomorrow")


def delete(made: Conversation) -> None:
    conversations.delete_conversation(caller=Caller(made.owner), conversation_id=made.pk)


def requests() -> list[tuple[str, list[str]]]:
    return [(row.reason, row.tags) for row in PurgeRequest.objects.order_by("pk")]


def test_a_conversation_names_its_states_and_its_logs() -> None:
    made, answer = talk()
    assert answer.generation is not None
    pk, generation_id = made.pk, answer.generation.pk
    passing = Generation.objects.create(
        owner="local", ephemeral=True, status="complete", params={"cache_tags": [made.cache_tag]}
    )
    others = Generation.objects.create(
        owner="local", ephemeral=True, status="complete", params={"cache_tags": ["0" * 32 + "/0"]}
    )
    delete(made)
    row = PurgeRequest.objects.get()
    assert (row.reason, row.tags, row.stage) == ("conversation", [pk.hex], "states")
    assert set(row.generation_ids) == {str(generation_id), str(passing.pk)}
    assert list(Generation.objects.values_list("pk", flat=True)) == [others.pk]


def test_a_deletion_that_is_undone_asks_for_nothing() -> None:
    made, _ = talk()
    with transaction.atomic():
        delete(made)
        assert requests() != []
        transaction.set_rollback(True)
    assert requests() == []
    assert Conversation.objects.filter(pk=made.pk).exists()


def test_a_note_purges_the_conversations_that_were_shown_it_and_no_others() -> None:
    note = indexer.add_note(owner="", title="", body="The secret")
    other = indexer.add_note(owner="", title="", body="Milk")
    (shown, answer), (also, second), (not_shown, third) = talk(), talk(), talk()
    add_sources(answer, {**SOURCE, "kind": "memory", "doc_id": str(note.pk)})
    add_sources(second, {**SOURCE, "kind": "memory", "doc_id": str(note.pk)})
    add_sources(third, {**SOURCE, "kind": "memory", "doc_id": str(other.pk)})
    # A line of a recording may have the same number as a note.
    add_sources(talk()[1], {**SOURCE, "kind": "transcript_segment", "doc_id": str(note.pk)})
    before = {shown.cache_tag, also.cache_tag}
    assert indexer.delete_note(owner="", note_id=note.pk)
    [(reason, tags)] = requests()
    assert (reason, set(tags)) == ("memory", before)
    for each in (shown, also):
        each.refresh_from_db()
        assert each.cache_tag not in before, "what it computes from now on is not purged"
    not_shown.refresh_from_db()
    assert not_shown.cache_epoch == 0
    assert answer.retrieval.sources, "the answer keeps its copy"


def test_a_transcript_is_found_by_its_lines() -> None:
    given = TranscriptIn(job_id="job", segments=tuple(SegmentIn(text=f"line {n}") for n in range(3)))
    transcript = indexer.index_transcript(owner="", transcript=given)
    shown, answer = talk()
    segment = transcript.segments.get(position=1)
    add_sources(answer, {**SOURCE, "kind": "transcript_segment", "doc_id": str(segment.pk)})
    tag = shown.cache_tag
    assert indexer.delete_transcript(owner="", job_id="job")
    assert requests() == [("memory", [tag])]


def test_what_was_not_there_asks_for_nothing() -> None:
    assert not indexer.delete_note(owner="", note_id=4711)
    assert not indexer.delete_transcript(owner="", job_id="none")
    assert requests() == []


class TestAdmin:
    def test_titles_of_what_was_deleted_are_in_no_log(self) -> None:
        client = operator()
        made, _ = talk(title="Quetzalcoatlus")
        client.post(f"/admin/chat/conversation/{made.pk}/change/", {"title": "Quetzalcoatlus II"})
        assert LogEntry.objects.filter(object_repr__contains="Quetzalcoatlus").exists()
        client.post(f"/admin/chat/conversation/{made.pk}/delete/", {"post": "yes"})
        note = indexer.add_note(owner="", title="Quetzalcoatlus", body="The secret")
        client.post(f"/admin/memory/note/{note.pk}/delete/", {"post": "yes"})
        assert not Note.objects.exists()
        assert not LogEntry.objects.filter(object_repr__contains="Quetzalcoatlus").exists()
        assert LogEntry.objects.filter(object_id=str(made.pk)).count() == 2

    def test_many_conversations_at_once(self) -> None:
        made = [talk()[0] for _ in range(3)]
        body = {"action": "delete_selected", "_selected_action": [str(each.pk) for each in made], "post": "yes"}
        operator().post("/admin/chat/conversation/", body)
        assert sorted(tags[0] for _, tags in requests()) == sorted(each.pk.hex for each in made)

    @pytest.mark.parametrize("way", ["page", "action"])
    def test_a_user_goes_with_what_belongs_to_him(self, way: str) -> None:
        client = operator()
        ann, bob = User.objects.create_user("ann"), User.objects.create_user("bob")
        mine, theirs = [talk(f"user:{each.pk}")[0] for each in (ann, bob)]
        indexer.add_note(owner=f"user:{ann.pk}", title="", body="Her own")
        indexer.add_note(owner=f"user:{bob.pk}", title="", body="His own")
        given = TranscriptIn(job_id="job", segments=(SegmentIn(text="line"),))
        indexer.index_transcript(owner=f"user:{ann.pk}", transcript=given)
        question_page = _delete_user(client, ann, way, confirmed=False)
        assert "ann has 1 conversation, 1 transcript and 1 note" in question_page
        assert User.objects.filter(pk=ann.pk).exists()
        _delete_user(client, ann, way, confirmed=True)
        assert not User.objects.filter(pk=ann.pk).exists()
        assert list(Conversation.objects.all()) == [theirs]
        assert [note.body for note in Note.objects.all()] == ["His own"]
        assert not Transcript.objects.exists()
        assert Generation.objects.count() == 1
        assert requests() == [("conversation", [mine.pk.hex]), ("user", [])]


def _delete_user(client: Client, user: User, way: str, *, confirmed: bool) -> str:
    post = {"post": "yes"} if confirmed else {}
    if way == "page":
        address = f"/admin/auth/user/{user.pk}/delete/"
        response = client.post(address, post) if confirmed else client.get(address)
    else:
        body = {"action": "delete_selected", "_selected_action": [str(user.pk)], **post}
        response = client.post("/admin/auth/user/", body)
    assert response.status_code in (200, 302)
    return response.content.decode()
