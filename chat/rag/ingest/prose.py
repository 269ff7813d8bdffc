"""Markdown and plain text: what is written becomes notes, what is said line by line a transcript."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.parsed_file import ParsedFile, RowRejected, checked_text, line
from chat.rag.ingest.speaker_labels import SpeakerLabels
from chat.rag.records import NoteIn, SegmentIn

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_FACT = re.compile(r"(title|date|created(?:_at)?)\s*:\s*(.+)", re.IGNORECASE)
_FRONT_MATTER_END = ("---", "...")
MOST_FRONT_MATTER_LINES = 100


@dataclass
class Piece:
    """Lines that belong together, from line ``number`` on; ``title`` is made of the headings above them."""

    number: int
    title: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def parse_markdown(text: str) -> ParsedFile:
    """A note per heading that has text below it; ``title`` and ``date`` of a front matter hold for all of them."""
    lines = re.split(r"\r\n|\n|\r", text)
    facts, begin = _front_matter(lines)
    parsed = ParsedFile()
    for piece in _sections(lines, begin, facts.get("title", "")):
        _add_note(parsed, piece, facts.get("date"))
    return parsed


def parse_text(text: str) -> ParsedFile:
    """A note per paragraph; a text in which most lines begin with a speaker is a transcript without times."""
    parsed = ParsedFile()
    pieces = list(_paragraphs(re.split(r"\r\n|\n|\r", text)))
    lines = [each for piece in pieces for each in piece.lines]
    labels = SpeakerLabels(lines)
    # One line with a colon is a note more often than a conversation.
    if len(lines) > 1 and labels.are_rule and labels.names:
        parsed.add_spoken(_segments(parsed, pieces, labels))
    else:
        for piece in pieces:
            _add_note(parsed, piece, None)
    return parsed


def _add_note(parsed: ParsedFile, piece: Piece, date: str | None) -> None:
    if not piece.text:
        return  # a heading that only holds other headings
    try:
        parsed.notes.append(NoteIn(title=piece.title, body=checked_text(piece.text), created_at=moment_of(date)))
    except RowRejected as refused:
        parsed.refuse(line(piece.number), f"the note {refused}")


def _segments(parsed: ParsedFile, pieces: list[Piece], labels: SpeakerLabels) -> list[SegmentIn]:
    segments = []
    for piece in pieces:
        for speaker, said in labels.utterances(piece.text):
            try:
                segments.append(SegmentIn(text=checked_text(said), speaker=speaker))
            except RowRejected as refused:
                parsed.refuse(line(piece.number), f"the paragraph {refused}")
    return segments


def _front_matter(lines: list[str]) -> tuple[dict[str, str], int]:
    """What a ``---`` block at the very beginning says of title and date, and where the text begins."""
    if not lines or lines[0].strip() != "---":
        return {}, 0
    ends = (n for n, each in enumerate(lines[1:MOST_FRONT_MATTER_LINES], start=1) if each.strip() in _FRONT_MATTER_END)
    end = next(ends, None)
    if end is None:
        return {}, 0
    found = (_FACT.fullmatch(each.strip()) for each in lines[1:end])
    facts = {("title" if m[1].lower() == "title" else "date"): m[2].strip().strip("\"'") for m in found if m}
    return facts, end + 1


def _sections(lines: list[str], begin: int, title: str) -> Iterator[Piece]:
    piece, above, fence = Piece(begin + 1, title), [title], ""
    for number, each in enumerate(lines[begin:], start=begin + 1):
        fenced = _FENCE.match(each)
        if fenced and fence in ("", fenced[1]):
            fence = "" if fence else fenced[1]
        # A hash inside a block of code is a comment, no heading.
        heading = None if fence or fenced else _HEADING.fullmatch(each)
        if heading is None:
            piece.lines.append(each)
            continue
        yield piece
        level = len(heading[1])
        above = [*above[:level], *[""] * (level - len(above)), heading[2].strip()]
        piece = Piece(number, " / ".join(part for part in above if part))
    yield piece


def _paragraphs(lines: list[str]) -> Iterator[Piece]:
    piece: Piece | None = None
    for number, each in enumerate(lines, start=1):
        if not each.strip():
            if piece:
                yield piece
            piece = None
        elif piece is None:
            piece = Piece(number, lines=[each])
        else:
            piece.lines.append(each)
    if piece:
        yield piece
