"""Import of one file into the store. Importing it again adds nothing twice: ids are derived from its path and content.

Knows no terminal; the caller gets the progress and a report.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from chat.rag.indexing import indexer
from chat.rag.ingest.formats import FileFormat, parse, read
from chat.rag.ingest.parsed_file import FileUnreadable, ImportProblem, ParsedFile
from chat.rag.ingest.recording_time import RecordingTime
from chat.rag.models import Note, Transcript
from chat.rag.records import NoteIn, TranscriptIn

GROUP_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """``owner`` "" is shared; ``speakers`` renames speakers; without ``form`` the format of each file is
    detected, without ``encoding`` its encoding."""

    owner: str = ""
    form: FileFormat | None = None
    encoding: str = ""
    date: datetime | None = None
    speakers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FileReport:
    """Result of importing one file."""

    path: Path
    n_segments: int = 0  # of new or changed transcripts
    n_notes: int = 0  # new or changed
    n_unchanged: int = 0  # transcripts and notes
    n_removed: int = 0  # notes and recordings that the file no longer holds
    dated_by: tuple[str, ...] = ()
    problems: list[ImportProblem] = field(default_factory=list)
    remarks: list[ImportProblem] = field(default_factory=list)

    def summary(self) -> str:
        """Return the counts that are not 0 as a sentence of the command's output."""
        counts = {
            "segments": self.n_segments,
            "notes": self.n_notes,
            "unchanged": self.n_unchanged,
            "removed": self.n_removed,
            "problems": len(self.problems),
        }
        parts = [f"{n} {noun}" for noun, n in counts.items() if n]
        return ", ".join(parts) + (f"; dated by {' and '.join(self.dated_by)}" if self.dated_by else "")


def import_file(path: Path, options: ImportOptions, advance: Callable[[float], None]) -> FileReport:
    """Import one file; ``advance`` receives the finished share, 0 to 1. Problems are in the report, not raised."""
    report = FileReport(path)
    try:
        text, n_replaced = read(path, options.encoding)
        parsed = parse(text, path, options.form)
        recording_time = RecordingTime(path, options.date)
    except (FileUnreadable, OSError) as error:
        report.problems.append(ImportProblem("", str(error)))
        return report
    report.problems += parsed.problems
    report.remarks += parsed.remarks
    if n_replaced:
        report.remarks.append(ImportProblem("", f"{n_replaced} damaged characters were replaced"))
    n_total = max(1, sum(len(transcript.segments) for transcript in parsed.transcripts) + len(parsed.notes))
    _FileImport(options, report, recording_time, lambda n: advance(n / n_total)).store(parsed)
    report.dated_by = tuple(sorted(recording_time.used))
    return report


class _FileImport:
    """Stores the parsed content of one file and counts it in the report."""

    def __init__(
        self,
        options: ImportOptions,
        report: FileReport,
        recording_time: RecordingTime,
        advance: Callable[[int], None],
    ) -> None:
        self.options = options
        self.report = report
        self.recording_time = recording_time
        self.advance = advance
        # Prefix of the ids of all memories of this file; a file that moves is a new one.
        resolved = str(report.path.resolve()).encode("utf-8", "surrogateescape")
        self.prefix = f"file/{hashlib.sha256(resolved).hexdigest()[:24]}"

    def store(self, parsed: ParsedFile) -> None:
        self._store_transcripts([self._completed(transcript) for transcript in parsed.transcripts])
        self._store_notes([self._with_key(note) for note in parsed.notes])

    def _store_transcripts(self, transcripts: list[TranscriptIn]) -> None:
        for begin in range(0, len(transcripts), GROUP_ROWS):
            group = transcripts[begin : begin + GROUP_ROWS]
            job_ids = [transcript.job_id for transcript in group]
            rows = Transcript.objects.filter(owner=self.options.owner, job_id__in=job_ids)
            digests = dict(rows.values_list("job_id", "digest"))
            indexed = indexer.index_transcripts(owner=self.options.owner, transcripts=group)
            for transcript, _ in zip(group, indexed, strict=True):
                if digests.get(transcript.job_id) == transcript.digest:
                    self.report.n_unchanged += 1
                else:
                    self.report.n_segments += len(transcript.segments)
                self.advance(len(transcript.segments))
        of_file = Transcript.objects.filter(owner=self.options.owner, job_id__startswith=self.prefix)
        obsolete = of_file.exclude(job_id__in=[transcript.job_id for transcript in transcripts])
        for job_id in list(obsolete.values_list("job_id", flat=True)):
            self.report.n_removed += indexer.delete_transcript(owner=self.options.owner, job_id=job_id)

    def _store_notes(self, notes: list[NoteIn]) -> None:
        of_file = Note.objects.filter(owner=self.options.owner, key__startswith=self.prefix)
        stored = dict(of_file.values_list("key", "pk"))
        by_key = {note.key: note for note in notes}  # a note that occurs twice in the file is stored once
        new = [note for key, note in by_key.items() if key not in stored]
        self.report.n_unchanged += len(by_key) - len(new)
        self.advance(len(notes) - len(new))
        for begin in range(0, len(new), GROUP_ROWS):
            group = new[begin : begin + GROUP_ROWS]
            self.report.n_notes += len(indexer.add_notes(owner=self.options.owner, notes=group))
            self.advance(len(group))
        # Deleted last: an interrupted import leaves too many notes, never too few.
        for key in stored.keys() - by_key.keys():
            self.report.n_removed += indexer.delete_note(owner=self.options.owner, note_id=stored[key])

    def _completed(self, transcript: TranscriptIn) -> TranscriptIn:
        """Return the recording with job id, title, time and renamed speakers."""
        names = self.options.speakers
        digest = hashlib.sha256(transcript.session_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        # Without an id of its own, a file is one recording, or one for each session that it names.
        job_id = transcript.job_id or (f"{self.prefix}/{digest}" if transcript.session_id else self.prefix)
        moment = self.recording_time.or_default(transcript.recorded_at)
        if not (transcript.recorded_at or self.recording_time.survives_touch):
            # A copy or a checkout changes the modification time, but not the time of the recording.
            previous = Transcript.objects.filter(owner=self.options.owner, job_id=job_id).first()
            moment = previous.created_at if previous else moment
        return replace(
            transcript,
            job_id=job_id,
            segments=tuple(
                replace(line, speaker=names.get(line.speaker, line.speaker)) for line in transcript.segments
            ),
            title=transcript.title or self.report.path.stem,
            recorded_at=moment,
        )

    def _with_key(self, note: NoteIn) -> NoteIn:
        title = note.title or self.report.path.stem
        moment = self.recording_time.or_default(note.created_at)
        # The modification time is no part of the identity: a touched file would be imported anew.
        dated = moment.isoformat() if note.created_at or self.recording_time.survives_touch else ""
        identity = json.dumps([title, note.body, dated, note.metadata], sort_keys=True, default=str)
        digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        metadata = {"file": self.report.path.name, **note.metadata}
        return NoteIn(title=title, body=note.body, metadata=metadata, key=f"{self.prefix}/{digest}", created_at=moment)
