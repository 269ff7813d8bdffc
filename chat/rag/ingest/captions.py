"""SubRip (.srt) and WebVTT (.vtt) files, as strictly as their writers allow.

Files in the wild lack counters and blank lines, have blank lines inside a text, or mix both formats; a line with
an arrow between times is what they agree on. WebVTT: https://www.w3.org/TR/webvtt1/
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from chat.rag.ingest.parsed_file import ParsedFile, RowRejected, checked_text, line
from chat.rag.ingest.speaker_labels import SpeakerLabels
from chat.rag.records import SegmentIn

_TIME = r"(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_ARROW = re.compile(r"\d\s*-->|-->\s*\d")  # an arrow alone is somebody's text
_VOICE = re.compile(r"<v(?:\.[^\s<>]*)?\s+([^<>]+)>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_HEADER_BLOCK = re.compile(r"\ufeff?(WEBVTT|NOTE|STYLE|REGION)(\s|$)")


@dataclass
class Cue:
    number: int  # of the line with the times
    start: float
    end: float
    lines: list[str] = field(default_factory=list)


@dataclass
class Block:
    """Lines without a blank one between them; ``number`` is the first one's."""

    number: int
    lines: list[str]


def parse(text: str) -> ParsedFile:
    """One transcript, and a problem per cue that cannot be taken in."""
    parsed = ParsedFile()
    cues = list(_cues(_blocks(text), parsed))
    plain = [clean(each) for cue in cues for each in cue.lines if not _VOICE.search(each)]
    labels = SpeakerLabels(each for each in plain if each)
    segments: list[SegmentIn] = []
    for cue in cues:
        try:
            segments += _segments(cue, labels)
        except RowRejected as refused:
            parsed.refuse(line(cue.number), f"the cue {refused}")
    parsed.add_spoken(segments)
    return parsed


def clean(text: str) -> str:
    """Without tags, positions and entities, in one line each."""
    without_tags = _TAG.sub("", text)
    return "\n".join(" ".join(html.unescape(each).split()) for each in without_tags.split("\n"))


def _blocks(text: str) -> Iterator[Block]:
    block: Block | None = None
    # Not splitlines: other characters at which that splits would shift the numbers of lines.
    for number, each in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not each.strip():
            block = None
        elif block is None:
            block = Block(number, [each])
            yield block
        else:
            block.lines.append(each)


def _cues(blocks: Iterator[Block], parsed: ParsedFile) -> Iterator[Cue]:
    cue: Cue | None = None
    for number, each in _lines(blocks):
        if _ARROW.search(each):
            if cue is not None:
                yield cue
            cue = _begun(number, each, parsed)
        elif cue is not None:
            # Also after a blank line: some writers leave them inside a text.
            cue.lines.append(each)
    if cue is not None:
        yield cue


def _lines(blocks: Iterator[Block]) -> Iterator[tuple[int, str]]:
    """The numbered lines that are times or texts."""
    # The blocks fill while they are read ahead of: all of them first.
    for block in list(blocks):
        if not _HEADER_BLOCK.match(block.lines[0]):
            yield from _without_counters(block)


def _without_counters(block: Block) -> list[tuple[int, str]]:
    """The numbered lines but for counters and identifiers, which stand directly before the times."""
    numbered = list(enumerate(block.lines, start=block.number))
    # A counter with a blank line behind it.
    if all(each.strip().isdigit() for each in block.lines):
        return []
    kept = []
    for index, (number, each) in enumerate(numbered):
        is_before_times = index + 1 < len(numbered) and _ARROW.search(numbered[index + 1][1])
        if not (is_before_times and (index == 0 or each.strip().isdigit())):
            kept.append((number, each))
    return kept


def _begun(number: int, times: str, parsed: ParsedFile) -> Cue | None:
    """The cue that these times begin; None, with a problem noted, drops the text that follows."""
    found = _TIMES.fullmatch(times)
    if found is None:
        parsed.refuse(line(number), f"these are no times: {times.strip()[:80]!r}")
        return None
    start, end = _secs(*found.groups()[:4]), _secs(*found.groups()[4:])
    if end < start:
        parsed.refuse(line(number), f"the cue ends before it begins: {times.strip()[:80]!r}")
        return None
    return Cue(number, start, end)


def _secs(hours: str | None, minutes: str, secs: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(secs) + float(f"0.{fraction or 0}")


def _segments(cue: Cue, labels: SpeakerLabels) -> list[SegmentIn]:
    """One segment per speaker. Raises RowRejected when nobody says anything."""
    before, *voiced = _VOICE.split("\n".join(cue.lines))
    said = labels.utterances(clean(before)) if clean(before).strip() else []
    voices = zip(voiced[::2], voiced[1::2], strict=True)
    said += [(" ".join(html.unescape(name).split()), " ".join(clean(text).split())) for name, text in voices]
    said = [(name, text) for name, text in said if text] or [("", "")]
    return [
        SegmentIn(text=checked_text(text), speaker=name, start_secs=cue.start, end_secs=cue.end) for name, text in said
    ]
