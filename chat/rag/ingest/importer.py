"""Import of one file into the store. Importing it again adds nothing twice: ids are derived from its path and content.

A file has one owner: an import for another one moves its memories, and so does one under another name when the old
name is gone. Knows no terminal; the caller gets the progress and a report.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from chat.rag.indexing import indexer
from chat.rag.ingest.formats import FileFormat, parse, read
from chat.rag.ingest.imported_files import Brought, forget, key_of, renamed_from
from chat.rag.ingest.parsed_file import FileUnreadable, ImportProblem, NothingToImport, ParsedFile
from chat.rag.ingest.recording_time import RecordingTime
from chat.rag.models import ImportedFile, Note, Transcript
from chat.rag.records import NoteIn, TranscriptIn

GROUP_ROWS = 500
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """``owner`` "" is shared; memories of a user become so only with ``shares``. ``speakers`` renames speakers; without
    ``form`` the format of each file is detected, without ``encoding`` its encoding; with ``dry_run`` the report is made
    and nothing is stored."""

    owner: str = ""
    shares: bool = False
    form: FileFormat | None = None
    encoding: str = ""
    date: datetime | None = None
    speakers: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False


@dataclass
class FileReport:
    """Result of importing one file."""

    path: Path
    n_segments: int = 0  # of new or changed transcripts
    n_notes: int = 0  # new or changed
    n_unchanged: int = 0  # transcripts and notes
    n_removed: int = 0  # notes and recordings that the file no longer holds, or held under another owner or name
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
        recording_time = RecordingTime(path, options.date)
        parsed = _parsed(text, path, options, report)
    except (FileUnreadable, OSError) as error:
        report.problems.append(ImportProblem("", str(error)))
        return report
    report.problems += parsed.problems
    report.remarks += parsed.remarks
    if n_replaced:
        report.remarks.append(ImportProblem("", f"{n_replaced} damaged characters were replaced"))
    n_total = max(1, sum(len(transcript.segments) for transcript in parsed.transcripts) + len(parsed.notes))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    file_import = _FileImport(options, report, recording_time, lambda n: advance(n / n_total))
    if file_import.would_publish():
        text = "its memories belong to a user: import it with --owner NAME, or with --shared for all users"
        report.problems.append(ImportProblem("", text))
        return report
    file_import.store(parsed, digest)
    report.dated_by = tuple(sorted(recording_time.used))
    return report


def _parsed(text: str, path: Path, options: ImportOptions, report: FileReport) -> ParsedFile:
    """Return the content; nothing for a file that was emptied. Raises FileUnreadable."""
    try:
        return parse(text, path, options.form)
    except NothingToImport as error:
        if not Brought.by_path(path):
            raise
        report.remarks.append(ImportProblem("", str(error)))
        return ParsedFile()


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
        self.prefix = key_of(report.path)
        self.earlier = Brought.by_path(report.path)

    def would_publish(self) -> bool:
        """Return whether the import would share memories of a user with all, without having been told to."""
        return not self.options.owner and not self.options.shares and bool(self.earlier.owners() - {""})

    def store(self, parsed: ParsedFile, digest: str) -> None:
        transcripts = [self._completed(transcript) for transcript in parsed.transcripts]
        # A note that occurs twice in the file is stored once.
        notes = {note.key: note for note in map(self._with_key, parsed.notes)}
        is_new = not self.earlier
        self._store_transcripts(transcripts)
        self._store_notes(list(notes.values()))
        job_ids = {transcript.job_id for transcript in transcripts}
        obsolete = self.earlier.except_for(owner=self.options.owner, job_ids=job_ids, keys=notes.keys())
        if self.report.problems and obsolete:
            # What could not be read may be what is stored.
            self.report.remarks.append(ImportProblem("", "what its earlier version alone had was not removed"))
            obsolete = obsolete.among(job_ids=job_ids, keys=notes.keys())
        if self.options.dry_run:
            self.report.n_removed += len(obsolete)
        else:
            self._record(digest, job_ids, notes.keys())
            # Deleted last: an interrupted import leaves too many memories, never too few.
            self.report.n_removed += forget(obsolete)
        if is_new:
            self._forget_earlier_name(digest)

    def _record(self, digest: str, job_ids: Collection[str], keys: Collection[str]) -> None:
        path = str(self.report.path.resolve())
        try:
            path.encode()
        except UnicodeEncodeError:  # a name that is no text cannot be stored
            return
        facts = {"path": path, "digest": digest, "owner": self.options.owner}
        file, _ = ImportedFile.objects.update_or_create(key=self.prefix, defaults=facts)
        for ids in _groups(job_ids):
            Transcript.objects.filter(owner=self.options.owner, job_id__in=ids).update(file=file)
        for ids in _groups(keys):
            Note.objects.filter(owner=self.options.owner, key__in=ids).update(file=file)

    def _forget_earlier_name(self, digest: str) -> None:
        """Remove what the same content brought under a name that is gone."""
        for file in renamed_from(digest, owner=self.options.owner, path=self.report.path):
            earlier = Brought.by_file(file)
            self.report.remarks.append(ImportProblem("", f"was {file.path} before; what that brought is replaced"))
            self.report.n_removed += len(earlier) if self.options.dry_run else forget(earlier)
            if not self.options.dry_run:
                file.delete()

    def _store_transcripts(self, transcripts: list[TranscriptIn]) -> None:
        for group in _groups(transcripts):
            job_ids = [transcript.job_id for transcript in group]
            rows = Transcript.objects.filter(owner=self.options.owner, job_id__in=job_ids)
            digests = dict(rows.values_list("job_id", "digest"))
            indexed = (
                group
                if self.options.dry_run
                else indexer.index_transcripts(owner=self.options.owner, transcripts=group)
            )
            for transcript, _ in zip(group, indexed, strict=True):
                if digests.get(transcript.job_id) == transcript.digest:
                    self.report.n_unchanged += 1
                else:
                    self.report.n_segments += len(transcript.segments)
                self.advance(len(transcript.segments))

    def _store_notes(self, notes: list[NoteIn]) -> None:
        stored = set[str]()
        for group in _groups(notes):
            rows = Note.objects.filter(owner=self.options.owner, key__in=[note.key for note in group])
            stored.update(rows.values_list("key", flat=True))
        new = [note for note in notes if note.key not in stored]
        self.report.n_unchanged += len(notes) - len(new)
        self.advance(len(notes) - len(new))
        for group in _groups(new):
            self.report.n_notes += len(group)
            if not self.options.dry_run:
                indexer.add_notes(owner=self.options.owner, notes=group)
            self.advance(len(group))

    def _completed(self, transcript: TranscriptIn) -> TranscriptIn:
        """Return the recording with job id, title, time and renamed speakers."""
        names = self.options.speakers
        digest = hashlib.sha256(transcript.session_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        # Without an id of its own, a file is one recording, or one for each session that it names.
        job_id = transcript.job_id or (f"{self.prefix}/{digest}" if transcript.session_id else self.prefix)
        moment = self.recording_time.or_default(transcript.recorded_at)
        if not (transcript.recorded_at or self.recording_time.survives_touch):
            # A copy or a checkout changes the modification time, but not the time of the recording.
            owners = {self.options.owner, *(owner for owner, _ in self.earlier.transcripts)}
            previous = Transcript.objects.filter(owner__in=owners, job_id=job_id).first()
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


def _groups(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while group := list(islice(iterator, GROUP_ROWS)):
        yield group
