"""Memories that are changed in place: the indexes, the vectors and the numbers are those of the new text."""

from datetime import UTC, datetime, timedelta

import pytest

from chat.errors import Conflict, InvalidRequest, NotFound
from chat.rag import statistics
from chat.rag.indexing import editing, indexer
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import SegmentIn, TranscriptIn
from chat.rag.vectors import backfill
from inference.models import PurgeRequest
from tests.admin.builders import SOURCE, add_answer, add_sources, conversation
from tests.rag.builders import NOW, ask, line, remember, texts

pytestmark = [pytest.mark.django_db, pytest.mark.databases]
# Inside a transaction a search does not use the index of the process.
with_index = pytest.mark.django_db(transaction=True)

LATER = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
LONG = " ".join(f"Sentence number {number} about the harbour." for number in range(60))  # several passages


def rows_of(transcript: Transcript) -> list[tuple[str, str, datetime]]:
    return list(transcript.segments.order_by("position").values_list("text", "speaker", "said_at"))


def vectors_of() -> set[bytes]:
    return {bytes(vector or b"") for vector in Passage.objects.values_list("embedding", flat=True)}


def as_indexed_again(transcript: Transcript) -> list[tuple[object, ...]]:
    """The passages that an import of the present lines makes, as they are compared."""
    columns = "text", "terms", "context", "context_terms", "speaker", "emotion", "said_at"
    now = list(Passage.objects.filter(transcript=transcript).order_by("segment__position", "pk").values_list(*columns))
    segments = tuple(
        SegmentIn(text=row.text, speaker=row.speaker, emotion=row.emotion, said_at=row.said_at)
        for row in transcript.segments.order_by("position")
    )
    transcript.refresh_from_db()
    copied = TranscriptIn(job_id="copy", title=transcript.title, recorded_at=transcript.created_at, segments=segments)
    copy = indexer.index_transcript(owner="copy", transcript=copied, defer_embedding=True)
    fresh = list(Passage.objects.filter(transcript=copy).order_by("segment__position", "pk").values_list(*columns))
    assert now == fresh
    copy.delete()
    return now


class TestNotes:
    @with_index
    def test_is_found_by_its_new_text_alone(self, words_as_vectors: None) -> None:
        note = indexer.add_note(owner="", title="Milk", body="Buy oat milk")
        ask("milk")  # the index knows the old passage
        editing.edit_note(note_id=note.pk, title="Bread", body="Buy rye bread", created_at=LATER)
        changed = Note.objects.get()
        assert (changed.pk, changed.title, changed.body, changed.created_at) == (
            note.pk,
            "Bread",
            "Buy rye bread",
            LATER,
        )
        assert (changed.title_folded, changed.body_folded) == ("bread", "buy rye bread")
        assert texts(ask("rye bread")) == ["Bread\nBuy rye bread"]
        assert texts(ask("oat milk")) == []

    def test_its_vector_is_computed_again(self) -> None:
        note = indexer.add_note(owner="", title="", body="Buy oat milk")
        before = bytes(Passage.objects.get().embedding or b"")
        editing.edit_note(note_id=note.pk, body="The train to Hamburg is late")
        assert Passage.objects.get().embedding is None
        backfill.embed_all()
        after = bytes(Passage.objects.get().embedding or b"")
        assert after != before
        added = indexer.add_note(owner="copy", title="", body="The train to Hamburg is late")
        assert bytes(added.passages.get().embedding or b"") == after

    def test_another_date_keeps_the_vector(self) -> None:
        note = indexer.add_note(owner="", title="", body="Buy oat milk")
        before = Passage.objects.get()
        editing.edit_note(note_id=note.pk, created_at=LATER)
        after = Passage.objects.get()
        assert after.said_at == LATER
        assert after.pk > before.pk, "indexes of other processes have the old date"
        assert bytes(after.embedding or b"") == bytes(before.embedding or b"")

    def test_of_a_file_it_keeps_what_tells_where_it_comes_from(self) -> None:
        note = indexer.add_note(owner="", title="", body="Buy milk", key="k", metadata={"file": "shopping list.txt"})
        editing.edit_note(note_id=note.pk, body="Buy bread")
        changed = Note.objects.get()
        assert (changed.key, changed.metadata) == ("k", {"file": "shopping list.txt"})
        assert texts(ask("shopping")) == ["Buy bread"]

    @pytest.mark.parametrize(("shorter", "longer"), [("One.", LONG), (LONG, "One.")])
    def test_has_as_many_passages_as_its_text_needs(self, shorter: str, longer: str, words_as_vectors: None) -> None:
        note = indexer.add_note(owner="", title="T", body=shorter)
        editing.edit_note(note_id=note.pk, body=longer)
        expected = indexer.add_note(owner="copy", title="T", body=longer)
        assert [passage.text for passage in note.passages.all()] == [row.text for row in expected.passages.all()]

    def test_that_is_gone(self) -> None:
        with pytest.raises(NotFound):
            editing.edit_note(note_id=4711, body="x")


class TestLines:
    @with_index
    def test_is_found_by_its_new_text_and_speaker(self, words_as_vectors: None) -> None:
        transcript = remember("We ship on Monday", "Fine", line("My cat likes fish", "Tom"), title="Weekly")
        ask("Monday")
        segment = transcript.segments.get(position=0)
        editing.edit_line(segment_id=segment.pk, text="We ship on Tuesday", speaker="Ann", said_at=LATER)
        assert rows_of(transcript)[0] == ("We ship on Tuesday", "Ann", LATER)
        segment.refresh_from_db()
        assert (segment.text_folded, segment.speaker_folded) == ("we ship on tuesday", "ann")
        [first, *_] = ask("ship Tuesday").sources
        assert (first.text, first.speaker, first.doc_id) == ("We ship on Tuesday", "Ann", str(segment.pk))
        assert "Monday" not in " ".join(texts(ask("Monday ship")))
        as_indexed_again(transcript)

    def test_the_line_after_it_has_it_as_context_and_the_others_keep_their_passages(self) -> None:
        transcript = remember("one", "two", "three", "four")
        before = dict(Passage.objects.values_list("text", "pk"))
        editing.edit_line(segment_id=transcript.segments.get(position=1).pk, text="the second")
        after = dict(Passage.objects.values_list("text", "pk"))
        assert set(after) == {"one", "the second", "three", "four"}
        assert {text for text in after if after[text] == before.get(text)} == {"one", "four"}
        assert Passage.objects.get(text="three").context == "Sarah: the second"
        assert set(Passage.objects.filter(embedding=None).values_list("text", flat=True)) == {"the second", "three"}
        as_indexed_again(transcript)

    @pytest.mark.parametrize("position", [0, 1, 2])
    @pytest.mark.parametrize("change", [{"text": LONG}, {"speaker": "SARAH"}, {"speaker": ""}, {"said_at": LATER}])
    def test_passages_are_those_of_an_import(
        self, position: int, change: dict[str, str], words_as_vectors: None
    ) -> None:
        transcript = remember(LONG, line("Yes", emotion="calm"), LONG, title="Weekly")
        editing.edit_line(segment_id=transcript.segments.get(position=position).pk, **change)  # type: ignore[arg-type]
        as_indexed_again(transcript)

    def test_the_pieces_of_a_long_line_stay_in_order(self, words_as_vectors: None) -> None:
        transcript = remember(LONG, "Yes")
        segment = transcript.segments.get(position=0)
        editing.edit_line(segment_id=segment.pk, text=f"Changed. {LONG}")
        pieces = Passage.objects.filter(segment=segment).order_by("pk").values_list("text", flat=True)
        assert " ".join(pieces) == f"Changed. {LONG}"

    def test_numbers_follow(self) -> None:
        transcript = remember(line("one", "Sarah", emotion="calm"), line("two", "Tom"))
        editing.edit_line(segment_id=transcript.segments.get(position=1).pk, speaker="Ann", said_at=LATER)
        segments = Segment.objects.all()
        assert set(statistics.emotions_by_speaker(segments)) == {"Sarah", "Ann"}
        assert statistics.segment_range("").end == LATER

    @pytest.mark.parametrize(
        ("full_text", "expected"),
        [
            ("", ""),
            ("Sarah: one. Tom: two.", "Sarah: 1. Tom: two."),
            ("one one two", "1\ntwo"),  # which of them it was is not known
            ("another form", "1\ntwo"),
        ],
    )
    def test_the_whole_text_has_the_change(self, full_text: str, expected: str) -> None:
        spoken = (SegmentIn(text="one"), SegmentIn(text="two"))
        given = TranscriptIn(job_id="j", segments=spoken, full_text=full_text)
        transcript = indexer.index_transcript(owner="", transcript=given)
        editing.edit_line(segment_id=transcript.segments.get(position=0).pk, text="1")
        transcript.refresh_from_db()
        assert transcript.full_text == expected

    def test_an_identical_import_keeps_the_change_and_another_replaces_it(self) -> None:
        transcript = remember("one", "two")
        editing.edit_line(segment_id=transcript.segments.get(position=0).pk, text="1")
        assert [text for text, *_ in rows_of(remember("one", "two"))] == ["1", "two"]
        assert [text for text, *_ in rows_of(remember("one", "two", "three"))] == ["one", "two", "three"]

    def test_what_was_shown_of_it_is_purged(self) -> None:
        transcript = remember("one", "two", "three")
        chats = [conversation() for _ in range(2)]
        shown, other = (add_answer(chat) for chat in chats)
        # The source of a neighbour had the line beside it.
        doc_id = str(transcript.segments.get(position=2).pk)
        add_sources(shown, {**SOURCE, "kind": "transcript_segment", "doc_id": doc_id})
        add_sources(other, {**SOURCE, "kind": "memory", "doc_id": doc_id})
        tag = chats[0].cache_tag
        editing.edit_line(segment_id=transcript.segments.get(position=1).pk, text="2")
        assert [row.tags for row in PurgeRequest.objects.all()] == [[tag]]

    def test_that_was_imported_anew_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        transcript = remember("one", "two")
        segment = transcript.segments.get(position=0)
        prepare = editing.PassageDiff.store

        def after_an_import(self: editing.PassageDiff, memory: Note | Transcript) -> None:
            monkeypatch.setattr(editing.PassageDiff, "store", prepare)
            remember("one", "two", "three")
            prepare(self, memory)

        monkeypatch.setattr(editing.PassageDiff, "store", after_an_import)
        with pytest.raises(Conflict):
            editing.edit_line(segment_id=segment.pk, text="1")

    def test_that_is_gone(self) -> None:
        with pytest.raises(NotFound):
            editing.edit_line(segment_id=4711, text="x")


class TestTranscripts:
    @with_index
    def test_another_title_is_found(self, words_as_vectors: None) -> None:
        transcript = remember("We ship on Monday", title="Weekly")
        assert texts(ask("weekly"))
        editing.edit_transcript(transcript_id=transcript.pk, title="Harbour")
        assert texts(ask("harbour")) == ["We ship on Monday"]
        assert texts(ask("weekly")) == []
        as_indexed_again(transcript)

    def test_the_lines_move_with_the_recording(self) -> None:
        transcript = remember(line("one", at=NOW), line("two", at=NOW + timedelta(minutes=5, microseconds=7)), at=NOW)
        before = vectors_of()
        editing.edit_transcript(transcript_id=transcript.pk, created_at=LATER)
        moments = [LATER, LATER + timedelta(minutes=5, microseconds=7)]
        assert [at for *_, at in rows_of(transcript)] == moments
        assert sorted(Passage.objects.values_list("said_at", flat=True)) == moments
        assert vectors_of() == before
        as_indexed_again(transcript)

    def test_no_line_leaves_the_calendar(self) -> None:
        transcript = remember("one", line("two", at=NOW + timedelta(days=365 * 3)))
        with pytest.raises(InvalidRequest):
            editing.edit_transcript(transcript_id=transcript.pk, created_at=datetime(9998, 1, 1, tzinfo=UTC))
        assert Transcript.objects.get().created_at == NOW

    def test_that_is_gone(self) -> None:
        with pytest.raises(NotFound):
            editing.edit_transcript(transcript_id=4711, title="x")
