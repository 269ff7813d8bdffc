"""Parser of JSON files: one row per line (JSONL), and the objects of Whisper, WhisperX and RAG services."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from chat.rag.ingest import json_dialects, json_rows
from chat.rag.ingest.json_rows import SegmentRow
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile, RowRejected, WithoutText, line
from chat.rag.limits import MAX_JOB_ID_CHARS
from chat.rag.records import SegmentIn, TranscriptIn, plain

# Fields that may hold the rows of an object; the last two occur in responses of RAG services.
LISTS = ("segments", "memories", "results")
TEXT_FIELDS = ("text", "body", "content")


def parse_lines(text: str) -> ParsedFile:
    """Parse one memory or segment per line; segments of the same recording become one transcript."""

    def rows() -> Iterator[tuple[str, object]]:
        # Not splitlines: JSON strings may contain other characters at which it splits.
        for number, row in enumerate(text.split("\n"), start=1):
            if row.strip():
                try:
                    yield line(number), load_json(row)
                except RowRejected as error:
                    yield line(number), error  # for parse_rows to record in order

    return parse_rows(rows())


def parse_object(text: str) -> ParsedFile:
    """Parse one recording, of this service or another one, or a list of rows. Raises FileUnreadable."""
    try:
        data = load_json(text)
    except RowRejected as error:
        raise FileUnreadable(str(error)) from error
    if isinstance(data, list):
        return _listed("", data)
    if not isinstance(data, Mapping):
        raise FileUnreadable("is neither a JSON object nor a list")
    if isinstance(data.get("segments"), list):
        return _recording(data, data["segments"])
    if translation := json_dialects.translated(data):
        return _recording(*translation)
    if name := next((name for name in LISTS if name in data), None):
        if not isinstance(data[name], list):
            raise FileUnreadable(f'"{name}" must be a list')
        return _listed(name, data[name])
    if not any(isinstance(data.get(name), str) for name in TEXT_FIELDS):
        names = ", ".join(f'"{str(name)[:40]}"' for name in list(data)[:10])
        raise FileUnreadable(f"is of an unknown form: none of its fields has segments or a text ({names})")
    return _listed("", [data])


def load_json(text: str) -> Any:  # noqa: ANN401
    """Decode JSON. Raises RowRejected with the position of the error."""
    try:
        # NaN and Infinity are read, as Whisper writes them; ``json_rows`` rejects them in the fields that are used.
        return json.loads(text)
    except RecursionError as error:
        raise RowRejected("is nested too deeply") from error
    except ValueError as error:
        raise RowRejected(f"is not JSON: {error}") from error


def _recording(data: Mapping[str, Any], entries: list[Any]) -> ParsedFile:
    """Parse a recording of Whisper, or a body of POST /index/transcript; word timings are dropped."""
    parsed = ParsedFile()
    segments: list[SegmentIn] = []
    for n, entry in enumerate(entries):
        try:
            if not isinstance(entry, Mapping):
                raise RowRejected("is not a JSON object")  # noqa: TRY301
            row = json_rows.parse_segment(entry)
            segments.append(row.segment)
            parsed.remark_left_out(f"segments[{n}]", row.left_out)
        except RowRejected as error:
            parsed.reject_segment(f"segments[{n}]", error)

    fields = json_rows.OptionalFields(data)
    facts = TranscriptIn(
        job_id=plain(fields.text(*json_rows.JOB_FIELDS))[:MAX_JOB_ID_CHARS],
        session_id=fields.text("session_id"),
        title=fields.text("title"),
        full_text=fields.text("full_text", "text"),
        duration_secs=fields.number("audio_duration", "duration"),
        recorded_at=fields.time(),
        segments=tuple(segments),
    )
    parsed.remark_left_out("", fields.left_out)
    if segments:
        parsed.transcripts.append(facts)
    return parsed


def _listed(name: str, entries: list[Any]) -> ParsedFile:
    return parse_rows((f"{name}[{n}]", entry) for n, entry in enumerate(entries))


def parse_rows(entries: Iterable[tuple[str, object]]) -> ParsedFile:
    """Parse rows, or the errors that took their places; each comes with the place that a problem names."""
    parsed = ParsedFile()
    # Rows of several recordings may be interleaved in one file.
    by_job: dict[tuple[str, str], list[SegmentRow]] = {}
    for where, entry in entries:
        try:
            if isinstance(entry, RowRejected):
                raise entry
            row = json_rows.parse_row(entry)
        except RowRejected as error:
            is_silence = isinstance(error, WithoutText) and isinstance(entry, Mapping) and json_rows.is_segment(entry)
            parsed.reject_segment(where, error if is_silence else RowRejected(str(error)))
            continue
        parsed.remark_left_out(where, row.left_out)
        if isinstance(row, SegmentRow):
            # Rows without a job are one recording for each session of the file.
            by_job.setdefault((row.job_id, "" if row.job_id else row.session_id), []).append(row)
        else:
            parsed.notes.append(row.note)
    parsed.transcripts += [_transcript(job_id, segments) for (job_id, _), segments in by_job.items()]
    return parsed


def _transcript(job_id: str, segments: list[SegmentRow]) -> TranscriptIn:
    """Join the rows of one recording, in file order."""
    recorded_at = min((row.moment for row in segments if row.moment is not None), default=None)
    first = segments[0]
    return TranscriptIn(
        job_id=job_id,
        session_id=first.session_id,
        title=first.title,
        recorded_at=recorded_at,
        # A segment with a time but no offset gets the offset from the earliest time.
        segments=tuple(
            replace(row.segment, start_secs=(row.moment - recorded_at).total_seconds())
            if row.segment.start_secs is None and row.moment is not None and recorded_at is not None
            else row.segment
            for row in segments
        ),
    )
