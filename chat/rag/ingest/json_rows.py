"""Rows of JSON -> segments and notes, whatever their writers call the fields: ours, Whisper's or a RAG service's."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.parsed_file import RowRejected, checked_text
from chat.rag.limits import MAX_JOB_ID_CHARS, MAX_METADATA_CHARS, MAX_METADATA_DEPTH
from chat.rag.records import NoteIn, SegmentIn
from chat.rag.sources import MEMORY, SEGMENT

Row = Mapping[str, Any]
WRITTEN = ("body", "title", "memory_id", "content")
SPOKEN = ("speaker", "start", "start_time", "end", "end_time", "emotion", "job_id", "transcript_id", "segment_id")
WHEN = ("created_at", "recorded_at", "said_at", "timestamp", "time", "date")
JOB = ("job_id", "transcript_id", "session_id")


@dataclass(frozen=True)
class SegmentRow:
    """A segment, the recording it names (empty: the file is the recording), and the moment it gives, if any."""

    segment: SegmentIn
    job_id: str
    session_id: str
    title: str
    moment: datetime | None


def take(row: object) -> SegmentRow | NoteIn:
    """Raises RowRejected."""
    if not isinstance(row, Mapping):
        raise RowRejected("is not a JSON object")
    # Search results keep what is known about a hit one level further down.
    nested = row.get("metadata")
    facts = {**nested, **row} if isinstance(nested, Mapping) else row
    return spoken(facts) if _is_spoken(row, facts) else _note(row, facts)


def spoken(facts: Row) -> SegmentRow:
    """Raises RowRejected."""
    start, moment = number(facts, "start", "start_time"), when(facts)
    segment = SegmentIn(
        text=checked_text(text(facts, "text", "content", "body")),
        speaker=text(facts, "speaker", "speaker_name"),
        start_secs=start,
        end_secs=number(facts, "end", "end_time"),
        emotion=text(facts, "emotion"),
        emotion_confidence=number(facts, "emotion_confidence"),
        emotion_scores=mapping(facts, "emotion_scores"),
        audio_metrics=mapping(facts, "audio_metrics"),
        # Beside a place in the recording a moment is the recording's, alone it is the line's own.
        said_at=moment if start is None else None,
    )
    return SegmentRow(
        segment, text(facts, *JOB)[:MAX_JOB_ID_CHARS], text(facts, "session_id"), text(facts, "title"), moment
    )


def _note(row: Row, facts: Row) -> NoteIn:
    return NoteIn(
        title=text(facts, "title"),
        body=checked_text(text(facts, "body", "text", "content")),
        metadata=mapping(row, "metadata"),
        created_at=when(facts),
    )


def _is_spoken(row: Row, facts: Row) -> bool:
    said = row.get("type") or row.get("doc_type")
    if said in (SEGMENT, MEMORY):
        return bool(said == SEGMENT)
    return not any(name in row for name in WRITTEN) and any(facts.get(name) is not None for name in SPOKEN)


def text(facts: Row, *names: str) -> str:
    """The first of these fields that is there; numbers are names, too. Raises RowRejected."""
    name, value = _first(facts, names)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise RowRejected(f'"{name}" must be a string')
    return value or ""


def number(facts: Row, *names: str) -> float | None:
    """Raises RowRejected for what is no finite number; null and nothing are None."""
    name, value = _first(facts, names)
    if value is None:
        return None
    # A whole number of 400 digits is no float at all.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if not is_number or not math.isfinite(value):
        raise RowRejected(f'"{name}" must be a number')
    return float(value)


def mapping(facts: Row, name: str) -> Mapping[str, Any]:
    value = facts.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise RowRejected(f'"{name}" must be an object')
    if _is_deep(value):
        raise RowRejected(f'"{name}" is nested too deeply')
    if value and (n_chars := len(json.dumps(value, ensure_ascii=False))) > MAX_METADATA_CHARS:
        raise RowRejected(f'"{name}" has {n_chars:,} characters; at most {MAX_METADATA_CHARS:,} are taken')
    return value or {}


def _is_deep(value: object, n_levels: int = MAX_METADATA_DEPTH) -> bool:
    match value:
        case Mapping():
            parts: Iterable[object] = value.values()
        case list():
            parts = value
        case _:
            return False
    return n_levels == 0 or any(_is_deep(part, n_levels - 1) for part in parts)


def when(facts: Row) -> datetime | None:
    """The moment that the row gives. Raises RowRejected for a text that is no date."""
    for name in WHEN:
        value = facts.get(name)
        moment = moment_of(value)
        if moment is not None:
            return moment
        # Small numbers are seconds into a recording under the same names.
        if isinstance(value, str) and value.strip():
            raise RowRejected(f'"{name}" is no date or time: {value[:40]!r}')
    return None


def _first(facts: Row, names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of the fields that is neither missing nor null, with its name."""
    return next(((name, facts[name]) for name in names if facts.get(name) is not None), (names[0], None))
