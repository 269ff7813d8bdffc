"""The pages of memories and retrievals: complete, escaped, and deletable after a confirmation."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from chat.models import Retrieval
from chat.rag.indexing import indexer
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import SegmentIn, TranscriptIn
from tests.admin.builders import SOURCE, add_answer, add_sources, conversation, operator, page_of, unfinished
from tests.admin.test_conversation_page import HOSTILE, shown, words

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

LISTS = ("transcript", "note")


@pytest.fixture
def client() -> Client:
    return operator()


def transcript(owner: str = "", *, n_lines: int = 3, text: str = "We ship on Monday") -> Transcript:
    segments = tuple(
        SegmentIn(
            text=f"{text} {number}", speaker="Sarah" if number % 2 else "Tom", start_secs=float(number), emotion="calm"
        )
        for number in range(n_lines)
    )
    recorded = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)
    given = TranscriptIn(job_id="job-1", title="Weekly", recorded_at=recorded, duration_secs=754.0, segments=segments)
    return indexer.index_transcript(owner=owner, transcript=given)


def address_of(memory: Transcript | Note, page: str = "change") -> str:
    return f"/admin/memory/{memory._meta.model_name}/{memory.pk}/{page}/"


class TestMemories:
    def test_a_transcript_reads_as_what_was_said(self, client: Client) -> None:
        whole = shown(client, address_of(transcript()))
        assert whole.index("We ship on Monday 2") < whole.index('name="_save"'), "operators come to read"
        page = words(whole)
        assert "Tom 2 Sarah 1" in page
        assert (
            "Tom 0:00 2026-03-01 14:05:00 calm Change We ship on Monday 0 Sarah 0:01 2026-03-01 14:05:01 calm Ch"
            in page
        )

    def test_a_long_one_comes_in_pages(self, client: Client) -> None:
        long = transcript(n_lines=205)
        assert "lines 1 to 200 of 205" in words(shown(client, address_of(long)))
        assert "We ship on Monday 204" in shown(client, address_of(long) + "?page=2")

    def test_lists_find_by_words_speakers_and_owners(self, client: Client) -> None:
        ann = User.objects.create_user("ann")
        transcript()
        indexer.add_note(owner=f"user:{ann.pk}", title="Milk", body="Buy oat milk")
        indexer.add_note(owner="", title="House rules", body="No shoes")
        listed = "/admin/memory/transcript/"
        assert "Weekly" in shown(client, f"{listed}?q=Sarah")
        assert "Weekly" in shown(client, f"{listed}?q=monday+2")
        assert "Weekly" not in shown(client, f"{listed}?q=tuesday")
        own = shown(client, f"/admin/memory/note/?owner=user:{ann.pk}")
        assert "Milk" in own
        assert "House rules" not in own
        common = shown(client, "/admin/memory/note/?owner=shared")
        assert "House rules" in common
        assert "Buy oat milk" not in common

    @pytest.mark.parametrize("kind", LISTS)
    def test_a_longer_list_asks_the_database_no_more_often(
        self, client: Client, kind: str, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        owners = [f"user:{User.objects.create_user(f'ann{number}').pk}" for number in range(20)]
        for owner in owners[:2]:
            transcript(owner)
            indexer.add_note(owner=owner, title="a", body="b")
        with CaptureQueriesContext(connection) as few:
            shown(client, f"/admin/memory/{kind}/")
        for owner in owners[2:]:
            transcript(owner)
            indexer.add_note(owner=owner, title="a", body="b")
        with django_assert_num_queries(len(few)):
            assert "ann19" in shown(client, f"/admin/memory/{kind}/")

    def test_no_transcript_is_added(self, client: Client) -> None:
        assert client.get("/admin/memory/transcript/add/").status_code == 403

    def test_deleting_asks_first_and_leaves_what_answers_were_shown(self, client: Client) -> None:
        gone = transcript()
        retrieval = add_sources(add_answer(conversation()), SOURCE)
        question_page = shown(client, address_of(gone, "delete"))
        assert "answers that cite it keep their copy" in question_page
        assert Transcript.objects.exists()
        assert client.post(address_of(gone, "delete"), {"post": "yes"}).status_code == 302
        assert not Transcript.objects.exists()
        assert not Passage.objects.exists()
        assert Retrieval.objects.get(pk=retrieval.pk).sources == [SOURCE]

    def test_several_are_deleted_at_once(self, client: Client) -> None:
        notes = [indexer.add_note(owner="", title=f"n{number}", body="b") for number in range(3)]
        chosen = {"action": "delete_selected", "_selected_action": [note.pk for note in notes[:2]], "post": "yes"}
        assert client.post("/admin/memory/note/", chosen).status_code == 302
        assert [note.title for note in Note.objects.all()] == ["n2"]
        assert Passage.objects.count() == 1

    @pytest.mark.parametrize("kind", LISTS)
    def test_who_may_only_look_may_not_delete(self, kind: str) -> None:
        memory = transcript() if kind == "transcript" else indexer.add_note(owner="", title="a", body="b")
        clerk = operator(f"view_{kind}")
        assert shown(clerk, address_of(memory))
        assert clerk.post(address_of(memory, "delete"), {"post": "yes"}).status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": [memory.pk], "post": "yes"}
        clerk.post(f"/admin/memory/{kind}/", chosen)
        assert type(memory)._default_manager.filter(pk=memory.pk).exists()
        assert Client().get(address_of(memory)).status_code == 302

    def test_hostile_memories_are_text(self, client: Client) -> None:
        note = indexer.add_note(
            owner="service:" + HOSTILE[:50], title=HOSTILE, body=HOSTILE, metadata={HOSTILE: HOSTILE}
        )
        segments = (SegmentIn(text=HOSTILE, speaker=HOSTILE, emotion=HOSTILE),)
        given = TranscriptIn(job_id=HOSTILE, title=HOSTILE, session_id=HOSTILE, segments=segments)
        spoken = indexer.index_transcript(owner=HOSTILE[:60], transcript=given)
        lists = [f"/admin/memory/{kind}/?q=script" for kind in LISTS]
        for address in (*lists, *(address_of(m, p) for m in (note, spoken) for p in ("change", "delete", "history"))):
            page = shown(client, address)
            assert "<script>alert" not in page
            assert "<img src=x" not in page


class TestWhatWasCited:
    def test_answers_by_whether_they_cite(self, client: Client) -> None:
        for title, text, labels in (("Citing", "On the 14th [1].", [1]), ("Silent", "On the 14th.", [])):
            add_sources(add_answer(conversation(title=title), text, labels=labels), SOURCE, query=f"{title} query")
        add_sources(unfinished(conversation(title="Waiting")), SOURCE, query="Waiting query")
        add_sources(add_answer(conversation(title="Empty"), labels=[]), query="Empty query")
        for value, expected in (("cited", {"Citing"}), ("uncited", {"Silent"}), ("empty", {"Empty"})):
            retrievals = shown(client, f"/admin/chat/retrieval/?outcome={value}")
            assert {
                name for name in ("Citing", "Silent", "Waiting", "Empty") if f"{name} query" in retrievals
            } == expected
            chats = shown(client, f"/admin/chat/conversation/?sources={value}")
            assert {name for name in ("Citing", "Silent", "Waiting", "Empty") if f">{name}<" in chats} == expected

    def test_how_a_search_came_to_what_it_showed(self, client: Client) -> None:
        scores = {"vector": 0.621, "text": None, "recency": 0.94}
        unseen = SOURCE | {"label": "", "text": "Something long", "scores": {"vector": 0.1}}
        retrieval = add_sources(
            add_answer(conversation(), "On the 14th, said Sarah."),
            SOURCE,
            query="When is the concert?",
            hits=[SOURCE | {"scores": scores}, unseen],
            understood={"refers_to": "Sarah", "speakers": ["Sarah"]},
            note="full text alone",
        )
        page = shown(client, f"/admin/chat/retrieval/{retrieval.pk}/change/")
        assert "On the 14th, said Sarah." in page.partition('<section class="transcript')[0]
        assert "<h2>When is the concert?</h2>" in page
        text = words(page)
        assert "understood refers to: Sarah, speakers: Sarah" in text
        assert "score 0.81 (meaning 0.62, recency 0.94) We cannot make" in text
        assert "Retrieved, but not shown to the model: Weekly Sarah" in text
        assert "(meaning 0.10) Something long" in text
        assert "Degraded search: full text alone" in text

    def test_why_a_memory_was_shown_and_others_were_not(self, client: Client) -> None:
        parts = {"vector": 0.62, "text": 0.4, "hints": 0.2, "recency": 0.9, "evidence": 0.82, "floor": 0.25}
        by_name = parts | {"vector": 0.1, "evidence": 0.1}
        below = {"vector": 0.05, "text": None, "hints": 0.0, "recency": 0.9, "evidence": 0.05, "floor": 0.25}
        others = [
            SOURCE | {"label": "", "text": "By its name", "scores": by_name},
            SOURCE | {"label": "", "text": "Far away", "scores": below, "rejected": True},
        ]
        answer = add_answer(conversation(), "We cannot make the first, said Sarah.", labels=[])
        retrieval = add_sources(answer, SOURCE, query="What did Sarah say?", hits=[SOURCE | {"scores": parts}, *others])
        page = shown(client, f"/admin/chat/retrieval/{retrieval.pk}/change/")
        text = words(page)
        assert "(meaning 0.62, words 0.40, speaker, time or emotion 0.20, recency 0.90)" in text
        assert "above the threshold: evidence 0.82, threshold 0.25" in text
        assert "has the words or a name of the question; evidence 0.10, threshold 0.25" in text
        seen, _, rejected = text.partition("below the relevance threshold, which the model was not shown:")
        assert "below the threshold: evidence 0.05, threshold 0.25" in rejected
        assert "Far away" in rejected
        assert "Far away" not in seen
        # The model wrote no label, the service attributed its sentence.
        assert "not cited" not in text

    @pytest.mark.parametrize("scores", [None, "high", {"vector": "x"}, [], {HOSTILE: 1.0}])
    def test_hits_may_be_anything_and_stay_text(self, client: Client, scores: object) -> None:
        hit = dict.fromkeys(SOURCE, HOSTILE) | {"label": "", "scores": scores}
        chat = conversation()
        retrieval = add_sources(add_answer(chat), SOURCE, hits=[hit, {}], understood={HOSTILE: [HOSTILE]}, note=HOSTILE)
        for address in (page_of(chat), f"/admin/chat/retrieval/{retrieval.pk}/change/"):
            page = shown(client, address)
            assert "<script>alert" not in page
            assert "<img src=x" not in page


def test_lines_without_offsets_have_no_invented_time_and_the_length_is_known_from_those_with_some(
    client: Client,
) -> None:
    recorded = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)
    row = Transcript.objects.create(job_id="j", title="Short", created_at=recorded)
    Segment.objects.create(transcript=row, position=0, text="Without a time.", speaker="Ann", said_at=recorded)
    page = words(shown(client, address_of(row)))
    assert "Ann Change Without a time." in page
    assert "last line" not in shown(client, address_of(row))
    Segment.objects.create(
        transcript=row, position=1, text="Later.", start_secs=3700, end_secs=3725.5, said_at=recorded
    )
    page = words(shown(client, address_of(row)))
    assert "1:01:40 2026-03-01 14:05:00 Change Later." in page
    assert "1:02:05, to the end of its last line" in shown(client, address_of(row))
