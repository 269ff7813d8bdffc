"""JSON files: one row a line (JSONL), and the objects that Whisper, WhisperX and RAG services write."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from chat.rag.ingest import json_rows
from chat.rag.ingest.json_rows import SegmentRow
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile, RowRejected, line
from chat.rag.limits import MAX_JOB_ID_CHARS
from chat.rag.records import SegmentIn, TranscriptIn

# Fields of an object that may hold its rows; the second are what answers of a RAG service list.
LISTS = ("segments", "memories", "results")


def parse_lines(text: str) -> ParsedFile:
    """One memory or segment a line; segments that name the same recording become one transcript."""
    parsed = ParsedFile()
    # Line ends alone: other characters at which splitlines splits may stand inside a JSON text.
    lines = ((line(n), each) for n, each in enumerate(text.split("\n"), start=1) if each.strip())
    _take_all(((where, _loaded_row(each)) for where, each in lines), parsed)
    return parsed


def parse_object(text: str) -> ParsedFile:
    """One recording with ``segments``, or a list of rows. Raises FileUnreadable."""
    try:
        data = loaded(text)
    except RowRejected as refused:
        raise FileUnreadable(str(refused)) from refused
    if isinstance(data, list):
        return _listed("", data)
    if not isinstance(data, Mapping):
        raise FileUnreadable("is neither a JSON object nor a list")
    name = next((name for name in LISTS if name in data), None)
    if name is None:
        return _listed("", [data])
    if not isinstance(data[name], list):
        raise FileUnreadable(f'"{name}" must be a list')
    return _recording(data, data[name]) if name == "segments" else _listed(name, data[name])


def loaded(text: str) -> Any:  # noqa: ANN401
    """Raises RowRejected, which says where it stops being JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise RowRejected("is nested too deeply") from error
    except ValueError as error:
        raise RowRejected(f"is not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _loaded_row(text: str) -> object:
    """The row, or what is wrong with it, for ``_take_all`` to note in its place."""
    try:
        return loaded(text)
    except RowRejected as refused:
        return refused


def _recording(data: Mapping[str, Any], entries: list[Any]) -> ParsedFile:
    """One recording, told as Whisper or as the body of POST /index/transcript does; words within are not kept."""
    parsed = ParsedFile()
    segments: list[SegmentIn] = []
    for n, entry in enumerate(entries):
        try:
            if not isinstance(entry, Mapping):
                raise RowRejected("is not a JSON object")  # noqa: TRY301
            segments.append(json_rows.spoken(entry).segment)
        except RowRejected as refused:
            parsed.refuse(f"segments[{n}]", str(refused))
    try:
        facts = TranscriptIn(
            job_id=json_rows.text(data, "job_id", "transcript_id")[:MAX_JOB_ID_CHARS],
            session_id=json_rows.text(data, "session_id"),
            title=json_rows.text(data, "title"),
            full_text=json_rows.text(data, "full_text", "text"),
            duration_secs=json_rows.number(data, "audio_duration", "duration"),
            recorded_at=json_rows.when(data),
            segments=tuple(segments),
        )
    except RowRejected as refused:
        raise FileUnreadable(str(refused)) from refused
    if segments:
        parsed.transcripts.append(facts)
    return parsed


def _listed(name: str, entries: list[Any]) -> ParsedFile:
    parsed = ParsedFile()
    _take_all(((f"{name}[{n}]", entry) for n, entry in enumerate(entries)), parsed)
    return parsed


def _take_all(entries: Iterable[tuple[str, object]], parsed: ParsedFile) -> None:
    # Rows of several recordings may lie mixed up in one file.
    by_job: dict[str, list[SegmentRow]] = {}
    for where, entry in entries:
        try:
            if isinstance(entry, RowRejected):
                raise entry
            taken = json_rows.take(entry)
        except RowRejected as refused:
            parsed.refuse(where, str(refused))
            continue
        if isinstance(taken, SegmentRow):
            by_job.setdefault(taken.job_id, []).append(taken)
        else:
            parsed.notes.append(taken)
    parsed.transcripts += [_joined(job_id, spoken) for job_id, spoken in by_job.items()]


def _joined(job_id: str, spoken: list[SegmentRow]) -> TranscriptIn:
    """One transcript of its rows, in their order."""
    moments = [each.moment for each in spoken if each.moment is not None]
    recorded_at = min(moments, default=None)
    first = spoken[0]
    return TranscriptIn(
        job_id=job_id,
        session_id=first.session_id,
        title=first.title,
        recorded_at=recorded_at,
        segments=tuple(_placed(each.segment, each.moment, recorded_at) for each in spoken),
    )


def _placed(segment: SegmentIn, moment: Any, recorded_at: Any) -> SegmentIn:  # noqa: ANN401
    """A line with an hour but no place in the recording gets the place that follows from the first line's hour."""
    if segment.start_secs is not None or moment is None:
        return segment
    return replace(segment, start_secs=(moment - recorded_at).total_seconds())
