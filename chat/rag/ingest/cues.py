"""Cues of captions, and the removal of what rolling captions repeat. Knows no file format."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

VOICE = re.compile(r"<v(?:\.[^\s<>]*+)?\s++([^<>]++)>", re.IGNORECASE)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
MAX_GAP_SECS = 1.0  # between a cue and one that repeats it because the display rolls
ROLLING_SHARE = 4  # captions roll when one transition in this many repeats a line and adds one


@dataclass
class Cue:
    """A caption; ``number`` is the line of its times, which are None where they are impossible."""

    number: int
    start: float | None
    end: float | None
    lines: list[str] = field(default_factory=list)
    speaker: str = ""


def clean(text: str) -> str:
    """Remove tags and positions, decode entities and collapse white space within each line."""
    without_tags = TAG.sub("", text)
    return "\n".join(" ".join(html.unescape(part).split()) for part in without_tags.split("\n"))


def unrolled(cues: list[Cue]) -> Iterator[Cue]:
    """Yield the cues; where captions roll, without the lines that a cue repeats from the one before."""
    transitions = [_Transition.of(before, cue) for before, cue in pairwise(cues)]
    n_rolling = sum(transition.adds_to_repeated for transition in transitions)
    if not n_rolling or n_rolling * ROLLING_SHARE < len(transitions):
        yield from cues
        return
    begin = cues[0].start
    following = [*transitions[1:], None]
    for cue, transition, after in zip(cues, [None, *transitions], [*transitions[:1], *following], strict=True):
        lines = cue.lines if transition is None else transition.new_lines(cue)
        begin = begin if transition and transition.is_growth else cue.start
        # The next cue has the same line with more words.
        if not (after and after.is_growth) and lines:
            yield replace(cue, lines=lines, start=begin)


@dataclass(frozen=True)
class _Transition:
    """The change from a cue to the next: repeated lines, new lines, or one line that became longer."""

    n_repeated: int = 0
    has_new: bool = False
    is_growth: bool = False

    @property
    def adds_to_repeated(self) -> bool:
        return (self.n_repeated > 0 and self.has_new) or self.is_growth

    @classmethod
    def of(cls, before: Cue, cue: Cue) -> "_Transition":
        is_apart = before.end is not None and cue.start is not None and cue.start - before.end > MAX_GAP_SECS
        old, new = _texts(before), _texts(cue)
        if is_apart or not old or not new:
            return cls()
        sizes = range(min(len(old), len(new)), 0, -1)
        n_repeated = next((n for n in sizes if old[-n:] == new[:n]), 0)
        is_growth = not n_repeated and len(new) == len(old) == 1 and new[0].startswith(f"{old[0]} ")
        return cls(n_repeated, len(new) > n_repeated, is_growth)

    def new_lines(self, cue: Cue) -> list[str]:
        lines = [content for content in cue.lines if clean(content)]
        voices = [match[0] for content in lines[: self.n_repeated] for match in VOICE.finditer(content)]
        rest = lines[self.n_repeated :]
        return ["".join(voices[-1:]) + rest[0], *rest[1:]] if rest else []


def _texts(cue: Cue) -> list[str]:
    return [text for text in map(clean, cue.lines) if text]
