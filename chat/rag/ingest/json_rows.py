"""Parses JSON rows into segments and notes, with the field names of this service, Whisper and RAG services."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.parsed_file import RowRejected, checked_text
from chat.rag.limits import MAX_JOB_ID_CHARS, MAX_METADATA_CHARS, MAX_METADATA_DEPTH
from chat.rag.records import NoteIn, SegmentIn, plain
from chat.rag.sources import MEMORY, SEGMENT

Row = Mapping[str, Any]
NOTE_FIELDS = ("body", "title", "memory_id", "content")
SPEAKER_FIELDS = ("speaker", "speaker_name", "speaker_label", "speaker_id")
START_FIELDS = ("start", "start_time", "startTime", "start_secs")
END_FIELDS = ("end", "end_time", "endTime", "end_secs")
JOB_FIELDS = ("job_id", "transcript_id")  # a session is no recording: it may have several
SEGMENT_FIELDS = (*SPEAKER_FIELDS, *START_FIELDS, *END_FIELDS, *JOB_FIELDS, "emotion", "segment_id")
TIME_FIELDS = ("created_at", "recorded_at", "said_at", "timestamp", "time", "date")
CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d{1,9})?)")
MAX_NUMBER = 1e300  # an integer of 400 digits does not convert to float
Value = TypeVar("Value")


@dataclass(frozen=True)
class SegmentRow:
    """A segment with the job id that it names (empty: the file is the recording) and its time, if any.

    ``left_out`` has a sentence for each unusable field.
    """

    segment: SegmentIn
    job_id: str
    session_id: str
    title: str
    moment: datetime | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class NoteRow:
    """A note; ``left_out`` as in SegmentRow."""

    note: NoteIn
    left_out: tuple[str, ...] = ()


class OptionalFields:
    """Fields of an object beside its text; an unusable one is left out and named in ``left_out``."""

    def __init__(self, facts: Row) -> None:
        self.facts = facts
        self.left_out: list[str] = []

    def text(self, *names: str) -> str:
        return self._usable(lambda: text(self.facts, *names), "")

    def number(self, *names: str) -> float | None:
        return self._usable(lambda: number(self.facts, *names), None)

    def mapping(self, name: str) -> Mapping[str, Any]:
        return self._usable(lambda: mapping(self.facts, name), {})

    def time(self) -> datetime | None:
        return self._usable(lambda: time_field(self.facts), None)

    def _usable(self, value: Callable[[], Value], default: Value) -> Value:
        # A field that describes a text is no reason to lose it.
        try:
            return value()
        except RowRejected as error:
            self.left_out.append(f"{error}; left out")
            return default


def parse_row(row: object) -> SegmentRow | NoteRow:
    """Parse a segment or a note. Raises RowRejected."""
    if not isinstance(row, Mapping):
        raise RowRejected("is not a JSON object")
    facts = _facts(row)
    if is_segment(row):
        return parse_segment(facts)
    fields = OptionalFields(facts)
    note = NoteIn(
        title=fields.text("title"),
        body=checked_text(text(facts, "body", "text", "content")),
        metadata=fields.mapping("metadata"),
        created_at=fields.time(),
    )
    return NoteRow(note, tuple(fields.left_out))


def _facts(row: Row) -> Row:
    """Return the fields of a row; search results hold those of a hit in "metadata"."""
    nested = row.get("metadata")
    return {**nested, **row} if isinstance(nested, Mapping) else row


def parse_segment(facts: Row) -> SegmentRow:
    """Parse a segment. Raises RowRejected."""
    fields = OptionalFields(facts)
    start, moment = fields.number(*START_FIELDS), fields.time()
    segment = SegmentIn(
        text=checked_text(text(facts, "text", "content", "body", "transcript")),
        speaker=fields.text(*SPEAKER_FIELDS),
        start_secs=start,
        end_secs=fields.number(*END_FIELDS),
        emotion=fields.text("emotion"),
        emotion_confidence=fields.number("emotion_confidence"),
        emotion_scores=fields.mapping("emotion_scores"),
        audio_metrics=fields.mapping("audio_metrics"),
        # Beside an offset the time is that of the recording, alone it is that of the segment.
        said_at=moment if start is None else None,
    )
    job_id = plain(fields.text(*JOB_FIELDS))[:MAX_JOB_ID_CHARS]
    session_id, title = fields.text("session_id"), fields.text("title")
    return SegmentRow(segment, job_id, session_id, title, moment, tuple(fields.left_out))


def is_segment(row: Row) -> bool:
    """Tell a segment from a note by its type, else by its fields."""
    facts = _facts(row)
    kind = row.get("type") or row.get("doc_type")
    if kind in (SEGMENT, MEMORY):
        return bool(kind == SEGMENT)
    return not any(name in row for name in NOTE_FIELDS) and any(facts.get(name) is not None for name in SEGMENT_FIELDS)


def text(facts: Row, *names: str) -> str:
    """Return the first present field as text; integers are accepted as names. Raises RowRejected."""
    name, value = _first(facts, names)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if value is not None and not isinstance(value, str):
        raise RowRejected(f'"{name}" must be a string')
    return value or ""


def number(facts: Row, *names: str) -> float | None:
    """Return the first present field as a finite number, None without one. Raises RowRejected."""
    name, value = _first(facts, names)
    if value is None:
        return None
    if isinstance(value, str):
        value = _number_in(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER
    if not is_number or not math.isfinite(value):
        raise RowRejected(f'"{name}" must be a number')
    return float(value)


def _number_in(text: str) -> float | None:
    """Return a number that is written as text, or the seconds of a clock time; None for other texts."""
    if clock := CLOCK.fullmatch(text.strip()):
        hours, minutes, secs = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(secs.replace(",", "."))
    try:
        # Google writes "1.400s"; tables of many countries have a decimal comma.
        return float(text.strip().removesuffix("s").replace(",", "."))
    except ValueError:
        return None


def mapping(facts: Row, name: str) -> Mapping[str, Any]:
    """Return an object within the metadata limits. Raises RowRejected."""
    value = facts.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise RowRejected(f'"{name}" must be an object')
    if _is_deep(value):
        raise RowRejected(f'"{name}" is nested too deeply')
    if value and (n_chars := len(json.dumps(value, ensure_ascii=False))) > MAX_METADATA_CHARS:
        raise RowRejected(f'"{name}" has {n_chars:,} characters; at most {MAX_METADATA_CHARS:,} are allowed')
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


def time_field(facts: Row) -> datetime | None:
    """Return the time of the row, None without one. Raises RowRejected for a text that is no date."""
    for name in TIME_FIELDS:
        value = facts.get(name)
        moment = moment_of(value)
        if moment is not None:
            return moment
        # Under the same names small numbers are offsets into a recording.
        if isinstance(value, str) and value.strip():
            raise RowRejected(f'"{name}" is not a date or time: {value[:40]!r}')
    return None


def _first(facts: Row, names: tuple[str, ...]) -> tuple[str, Any]:
    """Return name and value of the first field that is neither missing nor null."""
    return next(((name, facts[name]) for name in names if facts.get(name) is not None), (names[0], None))
