"""Result of a parser. The importer fills in dates, titles and ids that the file does not give."""

from dataclasses import dataclass, field

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


class RowRejected(Exception):
    """A row cannot be imported, for the reason in the text; other rows can."""


@dataclass
class ParsedFile:
    """Content of one file, and the problems of what could not be parsed."""

    transcripts: list[TranscriptIn] = field(default_factory=list)
    notes: list[NoteIn] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    def reject(self, where: str, text: str) -> None:
        self.problems.append(ImportProblem(where, text))

    def add_recording(self, segments: list[SegmentIn]) -> None:
        """Add a transcript of which only the segments are known."""
        if segments:
            self.transcripts.append(TranscriptIn(job_id="", segments=tuple(segments)))


def checked_text(text: str) -> str:
    """Return ``text`` stripped. Raises RowRejected when it is then empty or too long."""
    text = text.strip()
    if not text:
        raise RowRejected("has no text")
    if len(text) > MAX_TEXT_CHARS:
        raise RowRejected(f"has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are allowed")
    return text


def line(number: int) -> str:
    return f"line {number}"
