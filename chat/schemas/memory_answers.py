"""Memories as clients of a RAG service know them: both forms of its hits, notes, transcripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from chat.rag.models import Note, Segment, Transcript
from chat.rag.sources import SEGMENT, Source

Json = dict[str, Any]


def hits(sources: Sequence[Source]) -> list[Json]:
    """In the order of ``sources``; what was deleted since it was found is left out."""
    # A source has what a chat shows; services are told more, which only the rows know.
    lines = Segment.objects.select_related("transcript").in_bulk(_ids(sources, is_line=True))
    notes = Note.objects.in_bulk(_ids(sources, is_line=False))
    rows: list[tuple[Source, Json | None]] = [
        (source, _facts_of(lines if source.kind == SEGMENT else notes, source)) for source in sources
    ]
    return [_hit(source, facts) for source, facts in rows if facts is not None]


def old_hit(hit: Json) -> Json:
    """The older form of a hit."""
    facts = hit["metadata"]
    return {
        "doc_id": hit["id"],
        "doc_type": hit["type"],
        "text": hit["text"],
        "speaker": facts.get("speaker"),
        "score": hit["score"],
        "metadata": facts | {"timestamp": facts["created_at"]},
    }


def note_hit(hit: Json) -> Json:
    """A hit among notes alone, with the note's own fields beside the common ones."""
    return hit | {name: hit["metadata"][name] for name in ("memory_id", "title", "body", "created_at")}


def note_json(note: Note) -> Json:
    return {
        "memory_id": str(note.pk),
        "title": note.title,
        "body": note.body,
        "metadata": note.metadata,
        "created_at": note.created_at.isoformat(),
    }


def transcript_json(transcript: Transcript, *, n_segments: int) -> Json:
    return {
        "transcript_id": str(transcript.pk),
        "job_id": transcript.job_id,
        "session_id": transcript.session_id,
        "title": transcript.title,
        "audio_duration": transcript.duration_secs,
        "created_at": transcript.created_at.isoformat(),
        "segment_count": n_segments,
    }


def segment_json(segment: Segment) -> Json:
    return {
        "segment_id": str(segment.pk),
        "text": segment.text,
        "speaker": segment.speaker,
        "start_time": segment.start_secs,
        "end_time": segment.end_secs,
        "emotion": segment.emotion,
        "emotion_confidence": segment.emotion_confidence,
        "emotion_scores": segment.emotion_scores,
        "audio_metrics": segment.audio_metrics,
    }


def _ids(sources: Sequence[Source], *, is_line: bool) -> list[int]:
    return [int(source.doc_id) for source in sources if (source.kind == SEGMENT) is is_line]


def _facts_of(rows: Mapping[int, Segment] | Mapping[int, Note], source: Source) -> Json | None:
    row = rows.get(int(source.doc_id))
    match row:
        case Segment():
            facts = segment_json(row)
            named = {"job_id": row.transcript.job_id, "transcript_id": str(row.transcript_id)}
            # The line's own hour, which is what "created_at" of a hit is read as.
            return {name: facts[name] for name in facts if name != "text"} | named | {"created_at": _said(row)}
        case Note():
            return note_json(row)
    return None


def _said(segment: Segment) -> str:
    return segment.said_at.isoformat()


def _hit(source: Source, facts: Json) -> Json:
    prefix = "segment" if source.kind == SEGMENT else "memory"
    return {
        "id": f"{prefix}-{source.doc_id}",
        "text": source.text,
        "type": source.kind,
        "score": source.score,
        "metadata": facts,
    }
