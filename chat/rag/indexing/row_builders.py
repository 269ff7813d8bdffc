"""What comes in, as rows of the database: cleaned, cut to their columns, not yet saved."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from chat.rag.models import Note, Segment, Transcript
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn, finite, plain, plain_json, short

# No recording is longer; what says so has its numbers wrong.
LONGEST_SECS = 86_400.0


def transcript_of(owner: str, given: TranscriptIn, before: Transcript | None = None) -> Transcript:
    """``before`` is what it replaces."""
    return Transcript(
        owner=owner,
        job_id=given.job_id,
        session_id=short(given.session_id),
        title=short(given.title, 300),
        full_text=plain(given.full_text),
        duration_secs=finite(given.duration_secs),
        digest=given.digest,
        created_at=given.recorded_at or (before.created_at if before else _began(given)),
    )


def _began(given: TranscriptIn) -> datetime:
    """Of a recording that ends now: else its last lines would have been said in the future."""
    ends = (each.end_secs or each.start_secs or 0.0 for each in given.segments)
    length = finite(given.duration_secs) or finite(max(ends, default=0.0)) or 0.0
    return timezone.now() - timedelta(seconds=length if 0 < length <= LONGEST_SECS else 0.0)


def segments_of(transcript: Transcript, given: TranscriptIn) -> Iterator[Segment]:
    for position, each in enumerate(given.segments):
        text = plain(each.text).strip()
        if text:
            yield _segment(transcript, position, each, text)


def _segment(transcript: Transcript, position: int, given: SegmentIn, text: str) -> Segment:
    start = finite(given.start_secs)
    return Segment(
        transcript=transcript,
        position=position,
        text=text,
        speaker=short(given.speaker),
        start_secs=start,
        end_secs=finite(given.end_secs),
        emotion=short(given.emotion, 100),
        emotion_confidence=finite(given.emotion_confidence),
        emotion_scores=plain_json(given.emotion_scores),
        audio_metrics=plain_json(given.audio_metrics),
        said_at=given.said_at or _after(transcript.created_at, start or 0.0),
    )


def _after(moment: datetime, secs: float) -> datetime:
    try:
        return moment + timedelta(seconds=secs)
    except OverflowError:  # a start of thousands of years is no time
        return moment


def note_of(owner: str, given: NoteIn) -> Note:
    return Note(
        owner=owner,
        key=short(given.key),
        title=short(given.title, 300),
        body=plain(given.body).strip(),
        metadata=plain_json(given.metadata),
        created_at=given.created_at or timezone.now(),
    )
