"""What a parser makes of one file. Where the file gives no date, title or id, the run fills the fields."""

from dataclasses import dataclass, field

from chat.rag.limits import MAX_TEXT_CHARS
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn


@dataclass(frozen=True)
class ImportProblem:
    """Something in a file that could not be taken in; ``where`` is a line, an entry or nothing for the whole file."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class FileUnreadable(Exception):
    """Nothing of the file can be taken in; the text says why."""


class RowRejected(Exception):
    """One row cannot be taken in; the text says why. The others can."""


@dataclass
class ParsedFile:
    transcripts: list[TranscriptIn] = field(default_factory=list)
    notes: list[NoteIn] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)

    def refuse(self, where: str, text: str) -> None:
        self.problems.append(ImportProblem(where, text))

    def add_spoken(self, segments: list[SegmentIn]) -> None:
        """A transcript of which nothing but its lines is known."""
        if segments:
            self.transcripts.append(TranscriptIn(job_id="", segments=tuple(segments)))


def checked_text(text: str) -> str:
    """``text`` without blanks around it. Raises RowRejected when nothing or too much is left."""
    text = text.strip()
    if not text:
        raise RowRejected("has no text")
    if len(text) > MAX_TEXT_CHARS:
        raise RowRejected(f"has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are taken")
    return text


def line(number: int) -> str:
    return f"line {number}"
