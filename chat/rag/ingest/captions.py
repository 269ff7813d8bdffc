"""Parser of SubRip (.srt) and WebVTT (.vtt) captions, https://www.w3.org/TR/webvtt1/.

Tolerant: real files lack counters and blank lines, have blank lines inside a text, or mix both formats. Only the line
with an arrow between two times is reliable.
"""

import html
import itertools
import re

from chat.rag.ingest.cues import VOICE, Cue, clean, unrolled
from chat.rag.ingest.paragraphs import Paragraph, paragraphs
from chat.rag.ingest.parsed_file import ParsedFile, RowRejected, checked_text, line
from chat.rag.ingest.speaker_labels import SpeakerLabels
from chat.rag.records import SegmentIn

_TIME = r"(-?)(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMES = re.compile(rf"\A\s*+{_TIME}\s*-->\s*{_TIME}(?:[^\d:.,].*)?")
_ARROW = re.compile(r"\d\s*-->|-->\s*\d")  # an arrow alone is part of a text
# What hands and word processors make of the arrow.
_ODD_ARROW = re.compile(
    r"(?m)^([ \t]{0,8}(?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{1,3})[ \t]{0,8}(?:-{1,3}|[\u2013\u2014]|\u2192)>?[ \t]{0,8}"
    r"(?=(?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{1,3}[ \t]*$)"
)
_SBV_TIMES = re.compile(r"(?m)^(\d{1,3}:\d{1,2}:\d{1,2}\.\d{1,3}),(\d{1,3}:\d{1,2}:\d{1,2}\.\d{1,3})[ \t]*$")
_HEADER_BLOCK = re.compile(r"\ufeff?(WEBVTT|NOTE|STYLE|REGION)(\s|$)")


def parse(text: str) -> ParsedFile:
    """Parse one transcript; each unusable cue becomes a problem."""
    parsed = ParsedFile()
    text = _ODD_ARROW.sub(r"\1 --> ", text.replace("\r\n", "\n"))
    blocks = [block for block in map(_without_header, paragraphs(text)) if block.lines]
    cues: list[Cue | None] = []  # None for a cue with unusable times, whose lines are dropped
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        for number, content in _without_counters(block, following):
            if _ARROW.search(content):
                cues.append(_new_cue(number, content, parsed))
            elif cues and (cue := cues[-1]) is not None:
                # Also after a blank line, which some writers leave inside a text.
                cue.lines.append(content)
    add_cues(parsed, [cue for cue in cues if cue is not None])
    return parsed


def parse_sbv(text: str) -> ParsedFile:
    """Parse captions of YouTube's own form, which has a comma instead of the arrow."""
    return parse(_SBV_TIMES.sub(r"\1 --> \2", text))


def add_cues(parsed: ParsedFile, cues: list[Cue], *, title: str = "") -> None:
    """Add the recording that consists of ``cues``."""
    cues = list(unrolled(cues))
    plain = [clean(text) for cue in cues if not cue.speaker for text in cue.lines if not VOICE.search(text)]
    labels = SpeakerLabels(filter(None, plain))
    segments: list[SegmentIn] = []
    for cue in cues:
        try:
            segments += _segments(cue, labels)
        except RowRejected as error:
            parsed.reject_segment(line(cue.number), type(error)(f"the cue {error}"))
    parsed.add_recording(segments, title=title)


def _without_header(block: Paragraph) -> Paragraph:
    """Return what remains of a block of the header: the cue that some writers put right below it."""
    if not _HEADER_BLOCK.match(block.lines[0]):
        return block
    begin = next((n for n, content in enumerate(block.lines) if _ARROW.search(content)), len(block.lines))
    return Paragraph(block.number + begin, block.lines[begin:])


def _without_counters(block: Paragraph, following: Paragraph | None) -> list[tuple[int, str]]:
    """Return the numbered lines without counters and identifiers, which precede the times."""
    numbered = list(enumerate(block.lines, start=block.number))
    # A counter followed by a blank line is a block of its own; so is a number that is spoken.
    is_before_times = following is not None and _ARROW.search(following.lines[0])
    if is_before_times and len(block.lines) == 1 and block.lines[0].strip().isdigit():
        return []
    remaining = []
    for index, (number, content) in enumerate(numbered):
        is_above_times = index + 1 < len(numbered) and _ARROW.search(numbered[index + 1][1])
        if not (is_above_times and (index == 0 or content.strip().isdigit())):
            remaining.append((number, content))
    return remaining


def _new_cue(number: int, times: str, parsed: ParsedFile) -> Cue | None:
    """Return the cue that begins with ``times``; record unusable times as a problem and return None."""
    match = _TIMES.fullmatch(times)
    if match is None:
        parsed.reject(line(number), f"invalid times: {times.strip()[:80]!r}")
        return None
    start, end = _secs(*match.groups()[:5]), _secs(*match.groups()[5:])
    if start is None or end is None or end < start:
        parsed.remark(line(number), f"impossible times, dropped: {times.strip()[:80]!r}")
        end = None
    return Cue(number, start, end)


def _secs(sign: str, hours: str | None, minutes: str, secs: str, fraction: str | None) -> float | None:
    if sign:
        return None
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(secs) + float(f"0.{fraction or 0}")


def _segments(cue: Cue, labels: SpeakerLabels) -> list[SegmentIn]:
    """Return one segment per speaker. Raises RowRejected for a cue without text."""
    before, *voiced = VOICE.split("\n".join(cue.lines))
    plain = [Paragraph(cue.number, clean(before).split("\n"))] if clean(before).strip() else []
    utterances = [(utterance.speaker, utterance.text) for utterance in labels.utterances(plain)]
    voices = zip(voiced[::2], voiced[1::2], strict=True)
    utterances += [(" ".join(html.unescape(name).split()), " ".join(clean(text).split())) for name, text in voices]
    utterances = [(name, text) for name, text in utterances if text] or [("", "")]
    return [
        SegmentIn(text=checked_text(text), speaker=cue.speaker or name, start_secs=cue.start, end_secs=cue.end)
        for name, text in utterances
    ]
