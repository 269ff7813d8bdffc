"""One file after another -> the store. Run again it brings in nothing twice: a file is known by its path, and its notes
by what they say.

Knows no terminal; whoever runs it is told how far a file is.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from chat.rag.indexing import indexer
from chat.rag.ingest.dates import moment_in_name
from chat.rag.ingest.formats import BY_SUFFIX, FileFormat, parse, read
from chat.rag.ingest.parsed_file import FileUnreadable, ImportProblem, ParsedFile
from chat.rag.models import Note, Transcript
from chat.rag.records import NoteIn, TranscriptIn

# A file that names no recordings is taken in by parts: each is there for good when it is in, whatever ends the run.
PART_SEGMENTS = 2_000
NOTES_AT_ONCE = 500
IN_DATA, IN_OPTION, IN_NAME, IN_FILE = "its data", "--date", "its name", "its modification time"


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """``owner`` "" is everybody; ``speakers`` gives the names in files others; ``form`` None: each file's own."""

    owner: str = ""
    form: FileFormat | None = None
    date: datetime | None = None
    speakers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FileReport:
    """What became of one file."""

    path: Path
    n_segments: int = 0  # of transcripts that are new or changed
    n_notes: int = 0  # new or changed
    n_unchanged: int = 0  # transcripts and notes
    n_removed: int = 0  # notes and parts that the file does not hold any more
    dated_by: tuple[str, ...] = ()
    problems: list[ImportProblem] = field(default_factory=list)


def files_in(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """The files to import, directories walked, and how many others lie in those. Raises FileNotFoundError."""
    found: dict[Path, Path] = {}  # in their order, each once
    n_others = 0
    for path in paths:
        if not path.is_dir():
            path.stat()
            found.setdefault(path.resolve(), path)
            continue
        inside = sorted(each for each in path.rglob("*") if each.is_file() and not _is_hidden(each, path))
        wanted = [each for each in inside if each.suffix.lower() in BY_SUFFIX]
        n_others += len(inside) - len(wanted)
        for each in wanted:
            found.setdefault(each.resolve(), each)
    return list(found.values()), n_others


def import_file(path: Path, options: ImportOptions, advance: Callable[[float], None]) -> FileReport:
    """Bring one file in; ``advance`` hears how much of it is, from 0 to 1. What is wrong with it is in the report."""
    report = FileReport(path)
    try:
        parsed = parse(read(path), path, options.form)
        dated = _Dated(path, options.date)
    except (FileUnreadable, OSError) as error:
        report.problems.append(ImportProblem("", str(error)))
        return report
    report.problems += parsed.problems
    n_in_all = max(1, sum(len(each.segments) for each in parsed.transcripts) + len(parsed.notes))
    taking = _Taking(options, report, dated, _name_of(path), lambda n: advance(n / n_in_all))
    taking.take(parsed)
    report.dated_by = tuple(sorted(dated.used))
    return report


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _name_of(path: Path) -> str:
    """What all ids of a file's memories begin with; the file moved elsewhere is another file."""
    return f"file/{hashlib.sha256(str(path.resolve()).encode('utf-8', 'surrogateescape')).hexdigest()[:24]}"


class _Dated:
    """The moment of what does not say when it was recorded, and which sources of moments were used."""

    def __init__(self, path: Path, given: datetime | None) -> None:
        self.used: set[str] = set()
        in_name = moment_in_name(path.stem)
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        found = ((given, IN_OPTION), (in_name, IN_NAME), (modified, IN_FILE))
        self.moment, self.origin = next((moment, name) for moment, name in found if moment is not None)

    @property
    def is_of_content(self) -> bool:
        """Whether the moment stays the same when a file is only touched."""
        return self.origin != IN_FILE

    def or_else(self, own: datetime | None) -> datetime:
        self.used.add(IN_DATA if own else self.origin)
        return own or self.moment


class _Taking:
    """The way of one parsed file into the store."""

    def __init__(
        self, options: ImportOptions, report: FileReport, dated: _Dated, name: str, advance: Callable[[int], None]
    ) -> None:
        self.options = options
        self.report = report
        self.dated = dated
        self.name = name
        self.advance = advance

    def take(self, parsed: ParsedFile) -> None:
        if not self.dated.is_of_content:
            # A copy or a checkout gives a file a new time; it was recorded when it was.
            before = Transcript.objects.filter(owner=self.options.owner, job_id=self.name).first()
            self.dated.moment = before.created_at if before else self.dated.moment
        self._take_transcripts([part for each in parsed.transcripts for part in self._parts(each)])
        self._take_notes([self._keyed(each) for each in parsed.notes])

    def _take_transcripts(self, transcripts: list[TranscriptIn]) -> None:
        for begin in range(0, len(transcripts), NOTES_AT_ONCE):
            group = transcripts[begin : begin + NOTES_AT_ONCE]
            rows = Transcript.objects.filter(owner=self.options.owner, job_id__in=[each.job_id for each in group])
            known = dict(rows.values_list("job_id", "digest"))
            indexed = indexer.index_transcripts(owner=self.options.owner, transcripts=group)
            for given, _ in zip(group, indexed, strict=True):
                if known.get(given.job_id) == given.digest:
                    self.report.n_unchanged += 1
                else:
                    self.report.n_segments += len(given.segments)
                self.advance(len(given.segments))
        own = Transcript.objects.filter(owner=self.options.owner, job_id__startswith=self.name)
        gone = own.exclude(job_id__in=[each.job_id for each in transcripts])
        for job_id in list(gone.values_list("job_id", flat=True)):
            self.report.n_removed += indexer.delete_transcript(owner=self.options.owner, job_id=job_id)

    def _take_notes(self, notes: list[NoteIn]) -> None:
        own = Note.objects.filter(owner=self.options.owner, key__startswith=self.name)
        known = dict(own.values_list("key", "pk"))
        wanted = {note.key: note for note in notes}  # what stands twice in a file is one memory
        new = [note for key, note in wanted.items() if key not in known]
        self.report.n_unchanged += len(wanted) - len(new)
        self.advance(len(notes) - len(new))
        for begin in range(0, len(new), NOTES_AT_ONCE):
            group = new[begin : begin + NOTES_AT_ONCE]
            self.report.n_notes += len(indexer.add_notes(owner=self.options.owner, notes=group))
            self.advance(len(group))
        # The new ones first: a run that ends here leaves too much for the next one, never too little.
        for key in known.keys() - wanted.keys():
            self.report.n_removed += indexer.delete_note(owner=self.options.owner, note_id=known[key])

    def _parts(self, given: TranscriptIn) -> Iterator[TranscriptIn]:
        """The recording with a name, a title, a date and its speakers' names."""
        names = self.options.speakers
        segments = tuple(replace(each, speaker=names.get(each.speaker, each.speaker)) for each in given.segments)
        whole = replace(
            given,
            segments=segments,
            title=given.title or self.report.path.stem,
            recorded_at=self.dated.or_else(given.recorded_at),
        )
        if given.job_id:
            yield whole
            return
        for n, begin in enumerate(range(0, len(segments), PART_SEGMENTS)):
            job_id = f"{self.name}/{n + 1}" if n else self.name
            yield replace(whole, job_id=job_id, segments=segments[begin : begin + PART_SEGMENTS])

    def _keyed(self, given: NoteIn) -> NoteIn:
        title = given.title or self.report.path.stem
        moment = self.dated.or_else(given.created_at)
        said_when = moment.isoformat() if given.created_at or self.dated.is_of_content else ""
        says = json.dumps([title, given.body, said_when, given.metadata], sort_keys=True, default=str)
        digest = hashlib.sha256(says.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        metadata = {"file": self.report.path.name, **given.metadata}
        return NoteIn(title=title, body=given.body, metadata=metadata, key=f"{self.name}/{digest}", created_at=moment)
