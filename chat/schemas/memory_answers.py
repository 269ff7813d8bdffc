"""Memories as clients of a RAG service know them: both forms of its hits, notes, transcripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from chat.rag.models import Note, Segment, Transcript
from chat.rag.sources import SEGMENT, Source
from chat.schemas.answer_types import as_json

Json = dict[str, Any]


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


class SearchAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    query: str
    count: int
    results: list[HitAnswer]


class OldSearchAnswer(Struct, frozen=True, kw_only=True):
    """The older form of a search's answer. ``search_time`` includes ``query_embedding_time``; both in seconds."""

    results: list[OldHitAnswer]
    total_results: int
    query_embedding_time: float
    search_time: float


class NoteSearchAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    count: int
    results: list[NoteHitAnswer]


class NoteAnswer(Struct, frozen=True, kw_only=True):
    memory_id: str
    title: str
    body: str
    metadata: Json
    created_at: str


class NoteListAnswer(Struct, frozen=True, kw_only=True):
    """A page of notes; ``count`` is the number of all."""

    success: bool = True
    memories: list[NoteAnswer]
    count: int


class NoteIdAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    memory_id: str


class TranscriptIdAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    job_id: str


class TranscriptAnswer(Struct, frozen=True, kw_only=True):
    """A recording without its segments."""

    transcript_id: str
    job_id: str
    session_id: str
    title: str
    audio_duration: float | None
    created_at: str
    segment_count: int


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


class WholeTranscriptAnswer(TranscriptAnswer, frozen=True, kw_only=True):
    success: bool = True
    full_text: str
    segments: list[SegmentAnswer]


class TranscriptListAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    transcripts: list[TranscriptAnswer]
    count: int


class IndexAnswer(Struct, frozen=True, kw_only=True):
    """``vectors_pending``: passages that are found by their words now, and by meaning later."""

    success: bool = True
    transcript_id: str
    job_id: str
    segments_indexed: int
    vectors_pending: int


class SpeakersAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    speakers: list[str]
    count: int


class CountAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    count: int


class EmbeddingState(Struct, frozen=True, kw_only=True):
    """``detail`` is the reason why texts cannot be embedded, or empty."""

    available: bool
    dimensions: int
    detail: str | None


class StatsAnswer(Struct, frozen=True, kw_only=True):
    success: bool = True
    memories: int
    transcripts: int
    segments: int
    embeddings: EmbeddingState


def hits(sources: Sequence[Source]) -> list[HitAnswer]:
    """Return search results in the order of ``sources``, without those deleted since the search."""
    # A source has the fields that a chat shows; the rows have those that services want besides.
    segments = Segment.objects.select_related("transcript").in_bulk(_ids(sources, of_segments=True))
    notes = Note.objects.in_bulk(_ids(sources, of_segments=False))
    rows: list[tuple[Source, Json | None]] = [
        (source, _metadata(segments if source.kind == SEGMENT else notes, source)) for source in sources
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


def transcript_answer(transcript: Transcript, *, n_segments: int) -> TranscriptAnswer:
    return TranscriptAnswer(
        transcript_id=str(transcript.pk),
        job_id=transcript.job_id,
        session_id=transcript.session_id,
        title=transcript.title,
        audio_duration=transcript.duration_secs,
        created_at=transcript.created_at.isoformat(),
        segment_count=n_segments,
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


def _ids(sources: Sequence[Source], *, of_segments: bool) -> list[int]:
    return [int(source.doc_id) for source in sources if (source.kind == SEGMENT) is of_segments]


def _metadata(rows: Mapping[int, Segment] | Mapping[int, Note], source: Source) -> Json | None:
    row = rows.get(int(source.doc_id))
    match row:
        case Segment():
            fields = as_json(segment_answer(row))
            del fields["text"]
            # Clients read "created_at" of a hit as the hour of the utterance, not of the recording.
            ids = {"job_id": row.transcript.job_id, "transcript_id": str(row.transcript_id)}
            return fields | ids | {"created_at": row.said_at.isoformat()}
        case Note():
            return as_json(note_answer(row))
    return None


def _hit(source: Source, metadata: Json) -> HitAnswer:
    prefix = "segment" if source.kind == SEGMENT else "memory"
    return HitAnswer(
        id=f"{prefix}-{source.doc_id}", text=source.text, type=source.kind, score=source.score, metadata=metadata
    )
