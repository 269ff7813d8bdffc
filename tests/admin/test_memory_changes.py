"""Memories that an operator adds, changes and tries: with the permission for it, within the limits, on record."""

import re
from datetime import UTC, datetime
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries, Settings

from chat.access.caller_limits import forget_limits
from chat.errors import Conflict
from chat.rag.indexing import editing, indexer
from chat.rag.limits import MAX_TEXT_CHARS
from chat.rag.models import Note, Passage, Transcript
from chat.rag.query import RetrievalResult
from chat.rag.retrieval import local
from chat.rag.vectors import embedding
from tests.admin.builders import operator
from tests.admin.test_conversation_page import HOSTILE, shown
from tests.admin.test_memories import address_of, transcript
from tests.rag.builders import texts_of, word_vectors

pytestmark = [pytest.mark.django_db, pytest.mark.databases]

ADD, TRY = "/admin/memory/note/add/", "/admin/memory/note/try/"
DAY = {"created_at_0": "2026-03-01", "created_at_1": "14:05:00"}
NEW = {"title": "Milk", "owner_name": "", "body": "Buy oat milk", **DAY}
LINE = {"text": "We ship on Tuesday", "speaker": "Ann", "said_at_0": "2026-03-02", "said_at_1": "08:00:00"}


@pytest.fixture
def client() -> Client:
    return operator()


@pytest.fixture(autouse=True)
def _vectors_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: word_vectors([text])[0])
    monkeypatch.setattr(embedding, "embed_passages", lambda inputs, encoding: word_vectors(texts_of(inputs)))
    monkeypatch.setattr(embedding, "similarities", lambda cosines, question, encoding: cosines)


def line_address(of: Transcript, position: int = 0) -> str:
    return f"/admin/memory/transcript/line/{of.segments.get(position=position).pk}/"


def readable(page: str) -> str:
    """The text of the whole page on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def body_of(memory: Note | Transcript, **changes: str) -> dict[str, str]:
    """Return the form as the page has it, with ``changes``."""
    moment = {"created_at_0": f"{memory.created_at:%Y-%m-%d}", "created_at_1": f"{memory.created_at:%H:%M:%S}"}
    text = {"body": memory.body} if isinstance(memory, Note) else {}
    return {"title": memory.title, **moment, **text, **changes}


class TestAdding:
    def test_a_note_is_stored_searched_and_on_record(self, client: Client) -> None:
        ann = User.objects.create_user("ann")
        response = client.post(ADD, {**NEW, "owner_name": "ann"}, follow=True)
        assert "Its words are searched from now on" in readable(response.content.decode())
        note = Note.objects.get()
        assert (note.owner, note.title, note.body) == (f"user:{ann.pk}", "Milk", "Buy oat milk")
        assert note.created_at == datetime(2026, 3, 1, 14, 5, tzinfo=UTC)
        assert [(row.text, row.owner) for row in note.passages.all()] == [("Milk\nBuy oat milk", note.owner)]
        entry = LogEntry.objects.get()
        assert (entry.object_id, entry.object_repr, entry.is_addition()) == (str(note.pk), "Milk", True)

    @pytest.mark.parametrize(("name", "owner"), [("", ""), ("local", "local")])
    def test_owners_that_are_no_users(self, client: Client, name: str, owner: str) -> None:
        client.post(ADD, {**NEW, "owner_name": name})
        assert Note.objects.get().owner == owner

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"owner_name": "nobody"}, "There is no user of this name."),
            ({"body": ""}, "This field is required."),
            ({"body": " \n "}, "This field is required."),
            ({"body": "\u200b\u200b"}, "The text has no visible character."),
            ({"body": "x" * (MAX_TEXT_CHARS + 1)}, f"at most {MAX_TEXT_CHARS} characters"),
            ({"title": "x" * 301}, "at most 300 characters"),
            ({"created_at_0": "2026-02-30"}, "Enter a valid date."),
            ({"created_at_0": "0001-01-01"}, "The year must be from 2 to 9998."),
            ({"created_at_0": "", "created_at_1": ""}, "This field is required."),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_is_stored(
        self, client: Client, change: dict[str, str], error: str
    ) -> None:
        response = client.post(ADD, {**NEW, **change})
        assert response.status_code == 200
        assert error in readable(response.content.decode())
        assert not Note.objects.exists()
        assert not LogEntry.objects.exists()

    def test_no_owner_gets_more_than_the_limit(self, client: Client, settings: Settings) -> None:
        settings.LIMIT_MEMORIES = 1
        forget_limits()
        User.objects.create_user("ann")
        for n_expected in (1, 1):
            page = client.post(ADD, {**NEW, "owner_name": "ann"}).content.decode()
            assert Note.objects.count() == n_expected
        assert "as many memories as the limit allows" in page
        client.post(ADD, NEW)
        assert Note.objects.count() == 2, "shared memories have no limit"
        forget_limits()

    def test_the_longest_text_in_any_script_fits_into_the_form(self, client: Client) -> None:
        assert client.post(ADD, {**NEW, "body": "\u65e5" * MAX_TEXT_CHARS}).status_code == 302
        assert Note.objects.get().body == "\u65e5" * MAX_TEXT_CHARS


class TestChanging:
    def test_a_note(self, client: Client) -> None:
        note = indexer.add_note(owner="", title="Milk", body="Buy oat milk")
        response = client.post(address_of(note), body_of(note, title="Bread", body="Buy rye bread"))
        assert response.status_code == 302
        changed = Note.objects.get()
        assert (changed.title, changed.body, changed.created_at) == ("Bread", "Buy rye bread", note.created_at)
        assert [row.text for row in Passage.objects.all()] == ["Bread\nBuy rye bread"]
        entry = LogEntry.objects.get()
        assert (entry.object_repr, entry.get_change_message()) == ("Bread", "Changed Title and Text.")

    def test_no_log_keeps_the_title_of_before(self, client: Client) -> None:
        client.post(ADD, {**NEW, "title": "Quetzalcoatlus"})
        note = Note.objects.get()
        client.post(address_of(note), body_of(note, title="Bread"))
        assert [entry.object_repr for entry in LogEntry.objects.order_by("pk")] == [str(note.pk), "Bread"]

    def test_nothing_changed_is_nothing_done(self, client: Client) -> None:
        note, spoken = indexer.add_note(owner="", title="Milk", body="Buy oat milk"), transcript()
        ids = set(Passage.objects.values_list("pk", flat=True))
        before = Note.objects.get().created_at
        for memory in (note, spoken):
            assert client.post(address_of(memory), body_of(memory)).status_code == 302
        assert set(Passage.objects.values_list("pk", flat=True)) == ids
        assert Note.objects.get().created_at == before, "the form knows no microseconds"

    def test_what_an_import_owns_stays(self, client: Client) -> None:
        note = indexer.add_note(owner="", title="a", body="b", key="k", metadata={"file": "a.txt"})
        assert "next version of it replaces changes" in readable(shown(client, address_of(note)))
        client.post(
            address_of(note), body_of(note, key="x", metadata="{}", owner="user:1", owner_name="local", body="c")
        )
        changed = Note.objects.get()
        assert (changed.owner, changed.key, changed.metadata, changed.body) == ("", "k", {"file": "a.txt"}, "c")
        spoken = transcript()
        client.post(address_of(spoken), body_of(spoken, job_id="x", duration_secs="1", digest="", owner="user:1"))
        again = Transcript.objects.get()
        assert (again.job_id, again.duration_secs, again.digest, again.owner) == (
            spoken.job_id,
            spoken.duration_secs,
            spoken.digest,
            "",
        )

    def test_a_transcript(self, client: Client) -> None:
        spoken = transcript()
        client.post(address_of(spoken), body_of(spoken, title="Harbour", created_at_0="2026-03-02"))
        changed = Transcript.objects.get()
        assert (changed.title, changed.created_at.day) == ("Harbour", 2)
        assert [line.said_at.day for line in changed.segments.all()] == [2, 2, 2]
        assert LogEntry.objects.get().get_change_message() == "Changed Title and Recorded."

    def test_a_line(self, client: Client) -> None:
        spoken = transcript()
        page = shown(client, address_of(spoken))
        address = line_address(spoken, 1)
        assert f'href="{address}"' in page
        assert "We ship on Monday 1" in shown(client, address)
        response = client.post(address, LINE)
        segment = spoken.segments.get(position=1)
        assert response.headers["Location"] == f"{address_of(spoken)}?page=1#line-{segment.pk}"
        assert (segment.text, segment.speaker, segment.said_at.day) == ("We ship on Tuesday", "Ann", 2)
        assert Passage.objects.get(segment=segment).text == "We ship on Tuesday"
        entry = LogEntry.objects.get()
        assert entry.object_id == str(spoken.pk)
        assert "line" in entry.get_change_message()
        assert "Tuesday" not in entry.change_message

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"text": ""}, "This field is required."),
            ({"text": "\u200b"}, "The text has no visible character."),
            ({"text": "x" * (MAX_TEXT_CHARS + 1)}, f"at most {MAX_TEXT_CHARS} characters"),
            ({"speaker": "x" * 201}, "at most 200 characters"),
            ({"said_at_0": "tomorrow"}, "Enter a valid date."),
            ({"said_at_0": "9999-01-01"}, "The year must be from 2 to 9998."),
        ],
    )
    def test_a_line_that_is_wrong(self, client: Client, change: dict[str, str], error: str) -> None:
        spoken = transcript()
        response = client.post(line_address(spoken), {**LINE, **change})
        assert response.status_code == 200
        assert error in readable(response.content.decode())
        assert spoken.segments.get(position=0).text == "We ship on Monday 0"

    def test_what_another_changed_meanwhile_is_an_error_and_the_text_is_still_in_the_form(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spoken, note = transcript(), indexer.add_note(owner="", title="a", body="b")

        def gone(self: editing.PassageDiff, memory: Note | Transcript) -> None:
            raise Conflict(editing.CHANGED_MEANWHILE)

        monkeypatch.setattr(editing.PassageDiff, "store", gone)
        page = client.post(line_address(spoken), LINE).content.decode()
        assert "changed or deleted meanwhile" in page
        assert "We ship on Tuesday" in page
        page = client.post(address_of(note), body_of(note, body="c"), follow=True).content.decode()
        assert "changed or deleted meanwhile" in page
        assert Note.objects.get().body == "b"
        assert not LogEntry.objects.exists()

    def test_a_line_that_is_not_there(self, client: Client) -> None:
        assert client.get("/admin/memory/transcript/line/4711/").status_code == 404
        assert client.get(f"/admin/memory/transcript/line/{9 * 10**30}/").status_code == 404


class TestPermissions:
    def test_who_may_only_look(self) -> None:
        spoken, note = transcript(), indexer.add_note(owner="", title="a", body="b")
        clerk = operator("view_note", "view_transcript")
        for memory in (spoken, note):
            assert 'name="_save"' not in shown(clerk, address_of(memory))
            assert clerk.post(address_of(memory), body_of(memory, title="x")).status_code == 403
        assert "line/" not in shown(clerk, address_of(spoken))
        for address in (ADD, line_address(spoken)):
            assert clerk.get(address).status_code == 403
            assert clerk.post(address, {**NEW, **LINE}).status_code == 403
        assert "Change</a>" not in clerk.post(TRY, {"question": "Monday", "owner": ""}).content.decode()

    @pytest.mark.parametrize("permission", ["view_note", "view_transcript", "add_note"])
    def test_who_may_see_one_kind_alone_tries_nothing(self, permission: str) -> None:
        clerk = operator(permission)
        assert clerk.get(TRY).status_code == 403
        assert clerk.post(TRY, {"question": "Monday", "owner": ""}).status_code == 403

    def test_each_permission_by_itself(self) -> None:
        note = indexer.add_note(owner="", title="a", body="b")
        clerk = operator("add_note", "view_note")
        assert clerk.post(ADD, NEW).status_code == 302
        assert clerk.post(address_of(note), body_of(note, body="c")).status_code == 403
        assert Note.objects.get(pk=note.pk).body == "b"

    def test_without_a_login_or_a_token_of_the_form(self) -> None:
        spoken = transcript()
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(User.objects.create_superuser("root"))
        for address in (ADD, TRY, line_address(spoken)):
            assert Client().get(address).status_code == 302
            assert strict.post(address, {**NEW, **LINE, "question": "x", "owner": ""}).status_code == 403
            assert strict.put(address).status_code in (403, 405)
        assert not Note.objects.exists()

    @pytest.mark.parametrize("name", ["question", "owner"])
    def test_a_nul_is_refused(self, client: Client, name: str) -> None:
        assert client.post(TRY, {"question": "x", "owner": "", name: "a\0b"}).status_code == 400


class TestTrying:
    def ask(self, client: Client, question: str, owner: str = "") -> str:
        response = client.post(TRY, {"question": question, "owner": owner})
        assert response.status_code == 200
        assert "no-store" in response.headers["Cache-Control"]
        return readable(response.content.decode())

    def test_candidates_above_and_below_the_threshold(self, client: Client) -> None:
        for number in range(8):
            indexer.add_note(owner="", title="", body=f"The harbour opens at {number}")
        indexer.add_note(owner="", title="", body="Buy oat milk")
        page = self.ask(client, "When does the harbour open?")
        above, _, below = page.partition("Below the threshold (")
        first, _, second = above.partition("Above the threshold, and left out for their rank (3)")
        assert "unless the request sets another number (5)" in first
        assert first.count("The harbour opens at") == 5
        assert second.count("The harbour opens at") == 3
        assert "meaning" in first
        assert "above the threshold: evidence" in first
        assert "Buy oat milk" in below
        assert "below the threshold: evidence" in below
        assert "threshold evidence of 0." in page

    def test_each_owner_sees_the_shared_ones_and_his_own(self, client: Client) -> None:
        for name in ("ann", "bob"):
            user = User.objects.create_user(name)
            indexer.add_note(owner=f"user:{user.pk}", title="", body=f"The key of the harbour is with {name}")
        indexer.add_note(owner="", title="", body="The harbour is shared")
        of_ann = self.ask(client, "harbour", "ann")
        assert "with ann" in of_ann
        assert "is shared" in of_ann
        assert "with bob" not in of_ann
        of_all = self.ask(client, "harbour")
        assert "is shared" in of_all
        assert "with ann" not in of_all
        assert "There is no user of this name." in self.ask(client, "harbour", "carl")

    def test_a_question_without_a_subject(self, client: Client) -> None:
        transcript()
        page = self.ask(client, "What did Sarah say?")
        assert "understood speakers: sarah" in page
        assert "the question has no subject, and its hints decide" in page
        assert "pointed to by the question" in page

    def test_nothing_stored(self, client: Client) -> None:
        page = self.ask(client, "harbour")
        assert "the answer would be given without memories" in page
        assert "no passage was compared" in page
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("question", ["", " ", "x" * 2_001])
    def test_a_question_that_is_none(self, client: Client, question: str) -> None:
        page = self.ask(client, question)
        assert "This field is required." in page or "at most 2000 characters" in page
        assert "Below the threshold" not in page

    def test_an_external_service_is_named(self, client: Client, settings: Settings) -> None:
        settings.RAG_SERVICE_URL = "http://127.0.0.1:1"
        assert "this page searches the built-in memories" in readable(shown(client, TRY))

    def test_a_failure_of_the_search_is_shown(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        result = RetrievalResult(error="the memories could not be searched within 3 s", note="words alone")
        monkeypatch.setattr(local, "search", lambda query: result)
        page = self.ask(client, "harbour")
        assert "could not be searched within 3 s" in page
        assert "would be given without memories" not in page

    def test_hostile_memories_are_text(self, client: Client) -> None:
        indexer.add_note(owner="", title=HOSTILE, body=f"harbour {HOSTILE}")
        page = client.post(TRY, {"question": f"harbour {HOSTILE}", "owner": HOSTILE[:100]}).content.decode()
        assert "<script>alert" not in page
        page = client.post(TRY, {"question": f"harbour {HOSTILE}", "owner": ""}).content.decode()
        assert "harbour" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page


class TestQueries:
    def test_more_lines_and_candidates_ask_the_database_no_more_often(
        self, client: Client, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        few, many = transcript(n_lines=3), transcript("local", n_lines=60)
        for owner in ("", "local"):
            indexer.add_note(owner=owner, title="", body="The harbour")
        for own, addresses in ((few, {}), (many, {"owner": "local"})):
            pages = (address_of(own), line_address(own), ADD)
            queries = []
            for address in pages:
                with CaptureQueriesContext(connection) as captured:
                    shown(client, address)
                queries.append(len(captured))
            with CaptureQueriesContext(connection) as captured:
                client.post(TRY, {"question": "When do we ship?", "owner": "", **addresses})
            queries.append(len(captured))
            if own is few:
                expected = queries
        # One for the name of the owner, which shared memories have not.
        assert [n - m for n, m in zip(queries, expected, strict=True)] in ([0, 0, 0, 1], [1, 0, 0, 1])
        assert max(queries) <= 15
