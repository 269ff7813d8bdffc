"""Memories as clients of a RAG service know them: both forms of its hits, notes, transcripts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from chat.rag.listing import previous_segments
from chat.rag.models import Note, Segment, Transcript
from chat.rag.sources import SEGMENT, Source
from chat.schemas.answer_types import as_json

Json = dict[str, Any]
MEASURED = ("pitch_", "volume_")


class SuccessAnswer(Struct, frozen=True, kw_only=True):
    """Base of answers whose ``success`` clients of a RAG service check."""

    success: bool = True


class HitAnswer(Struct, frozen=True, kw_only=True):
    """A search result; ``metadata`` has the fields of its segment or note."""

    id: str
    text: str
    type: str
    score: float | None
    metadata: Json


class OldHitAnswer(Struct, frozen=True, kw_only=True):
    """The older form of a search result."""

    doc_id: str
    doc_type: str
    text: str
    speaker: str | None
    score: float | None
    metadata: Json


class NoteHitAnswer(HitAnswer, frozen=True, kw_only=True):
    """A search result among notes alone, with the note's own fields beside the common ones."""

    memory_id: str
    title: str
    body: str
    created_at: str


class SearchAnswer(SuccessAnswer, frozen=True, kw_only=True):
    query: str
    count: int
    results: list[HitAnswer]


class OldSearchAnswer(Struct, frozen=True, kw_only=True):
    """The older form of a search's answer. ``search_time`` includes ``query_embedding_time``; both in seconds."""

    results: list[OldHitAnswer]
    total_results: int
    query_embedding_time: float
    search_time: float


class NoteSearchAnswer(SuccessAnswer, frozen=True, kw_only=True):
    count: int
    results: list[NoteHitAnswer]


class NoteAnswer(Struct, frozen=True, kw_only=True):
    memory_id: str
    title: str
    body: str
    metadata: Json
    created_at: str


class NoteListAnswer(SuccessAnswer, frozen=True, kw_only=True):
    """A page of notes; ``count`` is the number of all."""

    memories: list[NoteAnswer]
    count: int


class NoteIdAnswer(SuccessAnswer, frozen=True, kw_only=True):
    memory_id: str


class TranscriptIdAnswer(SuccessAnswer, frozen=True, kw_only=True):
    job_id: str


class SegmentAnswer(Struct, frozen=True, kw_only=True):
    """An utterance; times are seconds into the recording."""

    segment_id: str
    text: str
    speaker: str
    start_time: float | None
    end_time: float | None
    emotion: str
    emotion_confidence: float | None
    emotion_scores: Json
    audio_metrics: Json


class TranscriptAnswer(Struct, frozen=True, kw_only=True):
    """A recording. ``timestamp`` is its ``created_at``; ``dominant_emotion`` the most frequent one, or empty."""

    transcript_id: str
    job_id: str
    session_id: str
    title: str
    audio_duration: float | None
    created_at: str
    timestamp: str
    segment_count: int
    full_text: str
    segments: list[SegmentAnswer]
    speakers: list[str]
    dominant_emotion: str


class WholeTranscriptAnswer(TranscriptAnswer, frozen=True, kw_only=True):
    """A recording, with the same fields under ``transcript`` for clients of a RAG service."""

    success: bool = True
    transcript: TranscriptAnswer


class TranscriptListAnswer(SuccessAnswer, frozen=True, kw_only=True):
    transcripts: list[TranscriptAnswer]
    count: int


class IndexAnswer(SuccessAnswer, frozen=True, kw_only=True):
    """``segments_skipped``: those without text. ``vectors_pending``: passages that are found by their words now, and
    by meaning later."""

    transcript_id: str
    job_id: str
    segments_indexed: int
    segments_skipped: int
    vectors_pending: int


class SpeakersAnswer(SuccessAnswer, frozen=True, kw_only=True):
    speakers: list[str]
    count: int


class CountAnswer(SuccessAnswer, frozen=True, kw_only=True):
    """``count``: segments; ``transcripts``: the recordings that they are from."""

    count: int
    transcripts: int


class EmbeddingState(Struct, frozen=True, kw_only=True):
    """``detail`` is the reason why texts cannot be embedded, or empty."""

    available: bool
    dimensions: int
    detail: str | None


class StatsAnswer(SuccessAnswer, frozen=True, kw_only=True):
    memories: int
    total_memories: int
    transcripts: int
    segments: int
    embeddings: EmbeddingState


def hits(sources: Sequence[Source]) -> list[HitAnswer]:
    """Return search results in the order of ``sources``, without those deleted since the search."""
    # A source has the fields that a chat shows; the rows have those that services want besides.
    segments = Segment.objects.select_related("transcript").in_bulk(_ids(sources, of_segments=True))
    previous = previous_segments(segments.values())
    notes = Note.objects.in_bulk(_ids(sources, of_segments=False))
    rows: list[tuple[Source, Json | None]] = [
        (source, _metadata(segments if source.kind == SEGMENT else notes, previous, source)) for source in sources
    ]
    return [_hit(source, metadata) for source, metadata in rows if metadata is not None]


def old_hit(hit: HitAnswer) -> OldHitAnswer:
    return OldHitAnswer(
        doc_id=hit.id,
        doc_type=hit.type,
        text=hit.text,
        speaker=hit.metadata.get("speaker"),
        score=hit.score,
        metadata=hit.metadata | {"timestamp": hit.metadata["created_at"]},
    )


def note_hit(hit: HitAnswer) -> NoteHitAnswer:
    fields = {name: hit.metadata[name] for name in ("memory_id", "title", "body", "created_at")}
    return NoteHitAnswer(id=hit.id, text=hit.text, type=hit.type, score=hit.score, metadata=hit.metadata, **fields)


def note_answer(note: Note) -> NoteAnswer:
    return NoteAnswer(
        memory_id=str(note.pk),
        title=note.title,
        body=note.body,
        metadata=note.metadata,
        created_at=note.created_at.isoformat(),
    )


def transcript_answer(transcript: Transcript) -> TranscriptAnswer:
    """Needs the segments, which may be prefetched."""
    segments = list(transcript.segments.all())
    emotions = Counter(segment.emotion for segment in segments if segment.emotion)
    created_at = transcript.created_at.isoformat()
    return TranscriptAnswer(
        transcript_id=str(transcript.pk),
        job_id=transcript.job_id,
        session_id=transcript.session_id,
        title=transcript.title,
        audio_duration=transcript.duration_secs,
        created_at=created_at,
        timestamp=created_at,
        segment_count=len(segments),
        full_text=transcript.full_text,
        segments=[segment_answer(segment) for segment in segments],
        speakers=sorted({segment.speaker for segment in segments if segment.speaker}),
        dominant_emotion=next((emotion for emotion, _ in emotions.most_common(1)), ""),
    )


def segment_answer(segment: Segment) -> SegmentAnswer:
    return SegmentAnswer(
        segment_id=str(segment.pk),
        text=segment.text,
        speaker=segment.speaker,
        start_time=segment.start_secs,
        end_time=segment.end_secs,
        emotion=segment.emotion,
        emotion_confidence=segment.emotion_confidence,
        emotion_scores=segment.emotion_scores,
        audio_metrics=segment.audio_metrics,
    )


def segment_measures(segment: Segment, previous: Segment | None) -> Json:
    """Return the place of a segment and how it was spoken, as flat fields: what the recogniser measured, or what text
    and times give; None where neither does. Values of pitch and volume are the recogniser's, under its names."""
    metrics = segment.audio_metrics
    n_words = len(segment.text.split())
    secs = (segment.end_secs or 0.0) - (segment.start_secs or 0.0)
    before_secs = previous.end_secs if previous else None
    gap_secs = None if segment.start_secs is None or before_secs is None else segment.start_secs - before_secs
    computed = {
        "seq": segment.position,
        "word_count": n_words,
        "pace_wpm": round(n_words * 60 / secs, 1) if secs > 0 else None,
        "pause_ms": None if gap_secs is None else round(max(0.0, gap_secs) * 1000),
    }
    measured = {name: value for name, value in metrics.items() if name in computed or name.startswith(MEASURED)}
    return computed | measured | {"seq": segment.position}


def _ids(sources: Sequence[Source], *, of_segments: bool) -> list[int]:
    return [int(source.doc_id) for source in sources if (source.kind == SEGMENT) is of_segments]


def _metadata(
    rows: Mapping[int, Segment] | Mapping[int, Note], previous: Mapping[int, Segment], source: Source
) -> Json | None:
    row = rows.get(int(source.doc_id))
    match row:
        case Segment():
            fields = as_json(segment_answer(row))
            del fields["text"]
            # Clients read "created_at" of a hit as the hour of the utterance, not of the recording.
            ids = {"job_id": row.transcript.job_id, "transcript_id": str(row.transcript_id)}
            measures = segment_measures(row, previous.get(row.pk))
            return measures | fields | ids | {"created_at": row.said_at.isoformat()}
        case Note():
            return as_json(note_answer(row))
    return None


def _hit(source: Source, metadata: Json) -> HitAnswer:
    prefix = "segment" if source.kind == SEGMENT else "memory"
    return HitAnswer(
        id=f"{prefix}-{source.doc_id}", text=source.text, type=source.kind, score=source.score, metadata=metadata
    )
