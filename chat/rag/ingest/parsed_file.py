"""Result of a parser. The importer fills in dates, titles and ids that the file does not give."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from chat.rag.limits import MAX_TEXT_CHARS
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn


@dataclass(frozen=True)
class ImportProblem:
    """A part of a file that was not imported; ``where`` names a line or an entry, or is empty for the whole file."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class FileUnreadable(Exception):
    """Nothing of the file can be imported, for the reason in the text."""


class NothingToImport(FileUnreadable):
    """The file can be read, and is empty."""


class RowRejected(Exception):
    """A row cannot be imported, for the reason in the text; other rows can."""


class WithoutText(RowRejected):
    """A row has nothing to import: recognisers write such segments for silence."""


@dataclass
class ParsedFile:
    """Content of one file, the problems of what could not be parsed, and remarks on what was left out of the rest."""

    transcripts: list[TranscriptIn] = field(default_factory=list)
    notes: list[NoteIn] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)
    remarks: list[ImportProblem] = field(default_factory=list)

    def reject(self, where: str, text: str) -> None:
        self.problems.append(ImportProblem(where, text))

    def reject_segment(self, where: str, error: RowRejected) -> None:
        """Record why a segment is missing; one without text is no problem."""
        (self.remarks if isinstance(error, WithoutText) else self.problems).append(ImportProblem(where, str(error)))

    def remark(self, where: str, text: str) -> None:
        self.remarks.append(ImportProblem(where, text))

    def remark_left_out(self, where: str, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            self.remark(where, sentence)

    def add_recording(self, segments: list[SegmentIn], *, title: str = "", recorded_at: datetime | None = None) -> None:
        """Add a transcript without an id; it began with its first message, where these have times."""
        times = [segment.said_at for segment in segments if segment.said_at]
        if segments:
            begin = recorded_at or min(times, default=None)
            transcript = TranscriptIn(job_id="", segments=tuple(segments), title=title, recorded_at=begin)
            self.transcripts.append(transcript)


def checked_text(text: str) -> str:
    """Return ``text`` stripped. Raises WithoutText when it is then empty, RowRejected when it is too long."""
    text = text.strip()
    if not text:
        raise WithoutText("has no text")
    if len(text) > MAX_TEXT_CHARS:
        raise RowRejected(f"has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are allowed")
    return text


def line(number: int) -> str:
    return f"line {number}"
