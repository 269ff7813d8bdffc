"""Parser of Markdown and plain text: prose becomes notes, lines with speakers or times become a transcript."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from chat.rag.ingest.dates import moment_of
from chat.rag.ingest.front_matter import read_front_matter
from chat.rag.ingest.paragraphs import Paragraph, paragraphs, split_lines
from chat.rag.ingest.parsed_file import ParsedFile, RowRejected, checked_text, line
from chat.rag.ingest.speaker_labels import SpeakerLabels
from chat.rag.records import NoteIn, SegmentIn

_HEADING = re.compile(r" {0,3}(#{1,6})\s++(.*)")
_FENCE = re.compile(r" {0,3}(```|~~~)")
# The head of minutes, above what was said.
_DATE_LINE = re.compile(
    r"\W*+(?:date|datum|fecha|data|日期|日時|التاريخ|дата)[^\w:\uff1a]*+[:\uff1a]\W*+(.*\w)\W*+", re.IGNORECASE
)
MAX_HEAD_LINES = 10


@dataclass
class Section(Paragraph):
    """Lines below ``heading``; ``title`` joins it with the headings above."""

    heading: str = ""
    title: str = ""

    def blocks(self) -> Iterator[Paragraph]:
        for block in paragraphs("\n".join(self.lines)):
            # The heading is on the line before the first one.
            yield Paragraph(self.number + block.number - (not self.heading), block.lines)


def parse_markdown(text: str) -> ParsedFile:
    """Parse a note per heading with text, or a transcript; title and date of the front matter apply to all."""
    lines = split_lines(text)
    head = read_front_matter(lines)
    sections = list(_sections(lines, head.n_lines, head.title))
    labels = _labels(content for section in sections for content in section.lines)
    parsed = ParsedFile()
    if labels is None:
        for section in sections:
            _add_note(parsed, section, title=section.title, date=head.moment)
        return parsed
    headings = [section.heading for section in sections if section.heading]
    title = head.title or next(iter(headings), "")
    segments = []
    for section in sections:
        if section.heading not in ("", title):
            segments.append(SegmentIn(text=section.heading))
        segments += _segments(parsed, section.blocks(), labels)
    parsed.add_recording(segments, title=title, recorded_at=head.moment or _date_in(lines[head.n_lines :]))
    return parsed


def parse_text(text: str) -> ParsedFile:
    """Parse a note per paragraph, or a transcript when most lines begin with a speaker or a time."""
    parsed = ParsedFile()
    blocks = list(paragraphs(text))
    lines = [content for block in blocks for content in block.lines]
    labels = _labels(lines)
    if labels:
        parsed.add_recording(_segments(parsed, blocks, labels), recorded_at=_date_in(lines))
    else:
        for block in blocks:
            _add_note(parsed, block)
    return parsed


def _labels(lines: Iterable[str]) -> SpeakerLabels | None:
    """Return the speakers of a conversation, None for prose."""
    lines = [content for content in lines if content.strip()]
    labels = SpeakerLabels(lines)
    # A single line with a colon is more often a note than a conversation.
    return labels if len(lines) > 1 and labels.divide else None


def _add_note(parsed: ParsedFile, block: Paragraph, *, title: str = "", date: datetime | None = None) -> None:
    if not block.text:
        return  # a heading that contains only further headings
    try:
        parsed.notes.append(NoteIn(title=title, body=checked_text(block.text), created_at=date))
    except RowRejected as error:
        parsed.reject(line(block.number), f"the note {error}")


def _segments(parsed: ParsedFile, blocks: Iterable[Paragraph], labels: SpeakerLabels) -> list[SegmentIn]:
    segments = []
    for utterance in labels.utterances(blocks):
        try:
            segments.append(
                SegmentIn(
                    text=checked_text(utterance.text),
                    speaker=utterance.speaker,
                    start_secs=utterance.start_secs,
                    end_secs=utterance.end_secs,
                    said_at=utterance.said_at,
                )
            )
        except RowRejected as error:
            parsed.reject_segment(line(utterance.number), type(error)(f"the paragraph {error}"))
    return segments


def _date_in(lines: list[str]) -> datetime | None:
    """Return the date that the head of minutes names."""
    matches = (_DATE_LINE.fullmatch(content) for content in lines[:MAX_HEAD_LINES])
    return next(filter(None, (moment_of(match[1]) for match in matches if match)), None)


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
        # Hashes that close a heading are none of its text, unless they are right behind a word or all there is.
        text = heading[2].rstrip()
        opened = text.rstrip("#")
        text = opened.rstrip() if opened.strip() and opened[-1].isspace() else text
        above = [*above[:level], *[""] * (level - len(above)), text]
        section = Section(number, heading=text, title=" / ".join(part for part in above if part))
    yield section
