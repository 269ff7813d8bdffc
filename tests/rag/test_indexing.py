"""Bringing memories in and out: idempotent, whole, with everything that hangs on them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from chat.rag.indexing import indexer
from chat.rag.indexing.indexer import add_note, delete_note, delete_transcript, index_transcript
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.query import SourceFilters
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn
from chat.rag.retrieval.retriever import RetrievalQuery, retrieve

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


def a_transcript(job_id: str = "job-1", *texts: str) -> TranscriptIn:
    sentences = texts or ("The deadline moved to Friday.", "My cat likes fish.")
    segments = tuple(SegmentIn(text=text, speaker="Sarah", start_secs=10.0 * n) for n, text in enumerate(sentences))
    return TranscriptIn(job_id=job_id, segments=segments, title="Planning", recorded_at=NOW)


def found(text: str, *, owner: str = "") -> list[str]:
    query = RetrievalQuery(text=text, top_k=5, filters=SourceFilters(), owner=owner, now=NOW)
    return [source.text for source in retrieve(query).sources]


def test_what_was_indexed_is_found() -> None:
    row = index_transcript(owner="", transcript=a_transcript())
    assert list(row.segments.values_list("position", "speaker", "start_secs")) == [
        (0, "Sarah", 0.0),
        (1, "Sarah", 10.0),
    ]
    assert "deadline" in found("To which day was the deadline moved?")[0]


def test_the_same_again_changes_nothing() -> None:
    first = index_transcript(owner="", transcript=a_transcript())
    ids = list(Segment.objects.values_list("pk", flat=True))
    again = index_transcript(owner="", transcript=a_transcript())
    assert again.pk == first.pk
    assert list(Segment.objects.values_list("pk", flat=True)) == ids


def test_another_text_under_the_same_name_replaces_it() -> None:
    first = index_transcript(owner="", transcript=a_transcript())
    again = index_transcript(owner="", transcript=a_transcript("job-1", "We ship on Monday."))
    assert again.pk == first.pk
    assert found("deadline") == []
    assert found("When do we ship?") == ["We ship on Monday."]
    assert Passage.objects.count() == 1


def test_the_same_name_of_another_owner_is_another_recording() -> None:
    index_transcript(owner="", transcript=a_transcript())
    index_transcript(owner="user:1", transcript=a_transcript("job-1", "My own words."))
    assert Transcript.objects.count() == 2
    assert "My own words." not in found("my own words")
    assert "My own words." in found("my own words", owner="user:1")


def test_deleting_takes_all_of_it() -> None:
    index_transcript(owner="", transcript=a_transcript())
    note = add_note(owner="", title="Budget", body="Approved in full.")
    assert delete_transcript(owner="", job_id="job-1")
    assert not delete_transcript(owner="", job_id="job-1")
    assert delete_note(owner="", note_id=note.pk)
    assert not delete_note(owner="", note_id=note.pk)
    assert not Passage.objects.exists()
    assert not Segment.objects.exists()
    assert not Note.objects.exists()


def test_deleting_needs_the_right_owner() -> None:
    index_transcript(owner="user:1", transcript=a_transcript())
    assert not delete_transcript(owner="", job_id="job-1")
    assert Transcript.objects.count() == 1


def test_many_at_once_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer, "GROUP_SEGMENTS", 3)
    given = [a_transcript(f"job-{number % 5}", f"Line {number}.", "Second.") for number in range(7)]
    rows = list(indexer.index_transcripts(owner="", transcripts=given))
    assert [row.job_id for row in rows] == [each.job_id for each in given]
    assert list(Segment.objects.filter(transcript__job_id="job-1").values_list("text", flat=True)) == [
        "Line 6.",
        "Second.",
    ]
    assert Transcript.objects.count() == 5
    assert Passage.objects.count() == Segment.objects.count() == 10


def test_of_notes_with_one_key_the_last_counts() -> None:
    notes = [NoteIn(title="", body=body, key="k") for body in ("one", "two")]
    indexer.add_notes(owner="", notes=notes)
    indexer.add_notes(owner="", notes=[NoteIn(title="", body="three", key="k"), NoteIn(title="", body="no key")])
    assert sorted(Note.objects.values_list("body", flat=True)) == ["no key", "three"]
    assert Passage.objects.count() == 2


def test_what_does_not_say_when_it_was_recorded_has_just_ended() -> None:
    spoken = (SegmentIn(text="first", start_secs=0.0), SegmentIn(text="last", start_secs=3500.0, end_secs=3600.0))
    before = timezone.now()
    row = index_transcript(owner="", transcript=TranscriptIn(job_id="j", segments=spoken))
    assert before - timedelta(hours=1) <= row.created_at <= timezone.now() - timedelta(hours=1)
    assert Segment.objects.get(text="last").said_at < timezone.now()
    # The same recording, further on: it began when it began.
    longer = (*spoken, SegmentIn(text="more", start_secs=4000.0))
    again = index_transcript(owner="", transcript=TranscriptIn(job_id="j", segments=longer, duration_secs=4100.0))
    assert again.created_at == row.created_at


def test_a_length_that_cannot_be_is_none() -> None:
    transcript = TranscriptIn(job_id="j", segments=(SegmentIn(text="x", start_secs=float("nan")),), duration_secs=1e9)
    assert timezone.now() - index_transcript(owner="", transcript=transcript).created_at < timedelta(minutes=1)
