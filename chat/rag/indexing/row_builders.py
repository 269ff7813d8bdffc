"""Unsaved database rows from indexer input, cleaned and cut to their columns."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from chat.rag.models import Note, Segment, Transcript
from chat.rag.records import NoteIn, TranscriptIn, finite, plain, plain_json, short
from inference.text_forms import composed

# No recording is longer; a greater length is an error of its writer.
LONGEST_SECS = 86_400.0


def transcript_row(owner: str, transcript: TranscriptIn, previous: Transcript | None = None) -> Transcript:
    """Build the row; without a time of its own it takes that of ``previous``, the row it replaces."""
    created_at = transcript.recorded_at or (previous.created_at if previous else None)
    if created_at is None:
        # A recording that began now would have its last lines in the future.
        length_secs = transcript.length_secs
        created_at = timezone.now() - timedelta(seconds=length_secs if 0 < length_secs <= LONGEST_SECS else 0.0)
    return Transcript(
        owner=owner,
        job_id=transcript.job_id,
        session_id=short(transcript.session_id),
        title=short(transcript.title, 300),
        full_text=plain(transcript.full_text),
        duration_secs=finite(transcript.duration_secs),
        digest=transcript.digest,
        created_at=created_at,
    )


def segment_rows(row: Transcript, transcript: TranscriptIn) -> Iterator[Segment]:
    """Build the rows of all segments with text; ``position`` counts the others, too."""
    for position, segment in enumerate(transcript.segments):
        text = plain(segment.text).strip()
        if not text:
            continue
        start = finite(segment.start_secs)
        yield Segment(
            transcript=row,
            position=position,
            text=text,
            speaker=short(composed(segment.speaker)),
            start_secs=start,
            end_secs=finite(segment.end_secs),
            emotion=short(segment.emotion, 100),
            emotion_confidence=finite(segment.emotion_confidence),
            emotion_scores=plain_json(segment.emotion_scores),
            audio_metrics=plain_json(segment.audio_metrics),
            said_at=segment.said_at or _after(row.created_at, start or 0.0),
        )


def _after(moment: datetime, secs: float) -> datetime:
    try:
        return moment + timedelta(seconds=secs)
    except OverflowError:  # an offset of thousands of years is an error of its writer
        return moment


def note_row(owner: str, note: NoteIn) -> Note:
    return Note(
        owner=owner,
        key=short(note.key),
        title=short(note.title, 300),
        body=plain(note.body).strip(),
        metadata=plain_json(note.metadata),
        created_at=note.created_at or timezone.now(),
    )
