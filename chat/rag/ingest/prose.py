"""Parser of Markdown and plain text: prose becomes notes, lines with speaker labels become a transcript."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.paragraphs import Paragraph, paragraphs, split_lines
from chat.rag.ingest.parsed_file import ParsedFile, RowRejected, checked_text, line
from chat.rag.ingest.speaker_labels import SpeakerLabels
from chat.rag.records import NoteIn, SegmentIn

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_FACT = re.compile(r"(title|date|created(?:_at)?)\s*:\s*(.+)", re.IGNORECASE)
_FRONT_MATTER_END = ("---", "...")
MAX_FRONT_MATTER_LINES = 100


@dataclass
class Section(Paragraph):
    """Lines below a heading; ``title`` joins the headings above them."""

    title: str = ""


def parse_markdown(text: str) -> ParsedFile:
    """Parse a note per heading with text; ``title`` and ``date`` of the front matter apply to all of them."""
    lines = split_lines(text)
    facts, begin = _front_matter(lines)
    parsed = ParsedFile()
    for section in _sections(lines, begin, facts.get("title", "")):
        _add_note(parsed, section, title=section.title, date=facts.get("date"))
    return parsed


def parse_text(text: str) -> ParsedFile:
    """Parse a note per paragraph, or a transcript without times when most lines begin with a speaker."""
    parsed = ParsedFile()
    blocks = list(paragraphs(text))
    lines = [content for block in blocks for content in block.lines]
    labels = SpeakerLabels(lines)
    # A single line with a colon is more often a note than a conversation.
    if len(lines) > 1 and labels.are_rule and labels.names:
        parsed.add_recording(_segments(parsed, blocks, labels))
    else:
        for block in blocks:
            _add_note(parsed, block)
    return parsed


def _add_note(parsed: ParsedFile, block: Paragraph, *, title: str = "", date: str | None = None) -> None:
    if not block.text:
        return  # a heading that contains only further headings
    try:
        parsed.notes.append(NoteIn(title=title, body=checked_text(block.text), created_at=moment_of(date)))
    except RowRejected as error:
        parsed.reject(line(block.number), f"the note {error}")


def _segments(parsed: ParsedFile, blocks: list[Paragraph], labels: SpeakerLabels) -> list[SegmentIn]:
    segments = []
    for block in blocks:
        for speaker, utterance in labels.utterances(block.text):
            try:
                segments.append(SegmentIn(text=checked_text(utterance), speaker=speaker))
            except RowRejected as error:
                parsed.reject(line(block.number), f"the paragraph {error}")
    return segments


def _front_matter(lines: list[str]) -> tuple[dict[str, str], int]:
    """Return title and date of a leading ``---`` block, and the index of the first line after it."""
    if not lines or lines[0].strip() != "---":
        return {}, 0
    head = enumerate(lines[1:MAX_FRONT_MATTER_LINES], start=1)
    end = next((n for n, content in head if content.strip() in _FRONT_MATTER_END), None)
    if end is None:
        return {}, 0
    matches = (_FACT.fullmatch(content.strip()) for content in lines[1:end])
    facts = {("title" if m[1].lower() == "title" else "date"): m[2].strip().strip("\"'") for m in matches if m}
    return facts, end + 1


def _sections(lines: list[str], begin: int, title: str) -> Iterator[Section]:
    section, above, fence = Section(begin + 1, title=title), [title], ""
    for number, content in enumerate(lines[begin:], start=begin + 1):
        fenced = _FENCE.match(content)
        if fenced and fence in ("", fenced[1]):
            fence = "" if fence else fenced[1]
        # A hash inside a code block is a comment, not a heading.
        heading = None if fence or fenced else _HEADING.fullmatch(content)
        if heading is None:
            section.lines.append(content)
            continue
        yield section
        level = len(heading[1])
        above = [*above[:level], *[""] * (level - len(above)), heading[2].strip()]
        section = Section(number, title=" / ".join(part for part in above if part))
    yield section
