"""Division of a growing text into the model's thought and its answer, at the marks of a chat format.

    header -> thought -> header -> answer [-> header ...]

A header may hold marks that open a thought or the answer; without one the answer begins. The division is a pure
function of the text: it does not depend on the pieces in which that arrives. Knows no tokens.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from inference.engine.params import ThoughtMarks

# Around the name of a control token in marks and in the text pushed here, so that the same characters written by the
# model are no mark. Both are no characters of Unicode.
CONTROL_START, CONTROL_END = "\ufdd0", "\ufdd1"
BETWEEN = "\n\n"  # two thoughts, or two texts of one answer

_CONTROL = re.compile(f"{CONTROL_START}[^{CONTROL_START}{CONTROL_END}]*{CONTROL_END}")


def spelled_control(name: str) -> str:
    return f"{CONTROL_START}{name}{CONTROL_END}"


class AnswerPart(Enum):
    HEADER = "header"
    THOUGHT = "thought"
    ANSWER = "answer"


class AnswerSegment(NamedTuple):
    """Decided text of one part. ``n_raw`` characters were consumed for it; those of a header have no text."""

    part: AnswerPart
    text: str
    n_raw: int


class ThoughtSplitter:
    """Takes decoded text and yields what can no longer change. White space around a thought is part of neither."""

    def __init__(self, marks: ThoughtMarks) -> None:
        self._marks = marks
        self._part = AnswerPart.THOUGHT if marks.is_open else AnswerPart.HEADER
        self._pending = ""
        self._trims_start = marks.is_open  # white space before the next visible character is dropped
        self._has_text = {AnswerPart.THOUGHT: False, AnswerPart.ANSWER: False}
        spelled = "".join((*marks.opens, *marks.closes, *marks.answers, *marks.ends))
        self._controls = frozenset(_CONTROL.findall(spelled))

    def spelled(self, control_name: str) -> str:
        """Return the text to push for a control token; empty if it is part of no mark."""
        text = spelled_control(control_name)
        return text if text in self._controls else ""

    @property
    def is_thinking(self) -> bool:
        return self._part is AnswerPart.THOUGHT

    def push(self, text: str) -> Iterator[AnswerSegment]:
        self._pending += text
        while self._pending:
            before = self._part, self._pending
            yield from self._step()
            if (self._part, self._pending) == before:
                return

    def flush(self) -> Iterator[AnswerSegment]:
        """Yield the pending text at the end; white space at the end of a thought is dropped."""
        pending, self._pending = self._pending, ""
        if not pending:
            return
        if self._part is AnswerPart.THOUGHT:
            yield self._segment(AnswerPart.THOUGHT, pending.rstrip(), len(pending))
        else:
            yield self._segment(AnswerPart.ANSWER, pending, len(pending))

    def _step(self) -> Iterator[AnswerSegment]:
        match self._part:
            case AnswerPart.HEADER:
                yield from self._header()
            case AnswerPart.THOUGHT:
                yield from self._until(self._marks.closes, keeps_space=False)
            case AnswerPart.ANSWER:
                yield from self._until(self._marks.ends, keeps_space=True)

    def _header(self) -> Iterator[AnswerSegment]:
        visible = self._pending.lstrip()
        opening = _longest_start(visible, self._marks.opens)
        answering = _longest_start(visible, self._marks.answers)
        mark = max(opening, answering, key=len)
        if mark:
            n_raw = len(self._pending) - len(visible) + len(mark)
            self._pending = self._pending[n_raw:]
            self._enter(AnswerPart.THOUGHT if mark == opening else AnswerPart.ANSWER)
            yield AnswerSegment(AnswerPart.HEADER, "", n_raw)
        elif visible and not any(mark.startswith(visible) for mark in (*self._marks.opens, *self._marks.answers)):
            self._part = AnswerPart.ANSWER

    def _enter(self, part: AnswerPart) -> None:
        self._part, self._trims_start = part, True

    def _until(self, marks: Iterable[str], *, keeps_space: bool) -> Iterator[AnswerSegment]:
        """Release up to the first of ``marks``, or all that cannot begin one."""
        part, text = self._part, self._pending
        places = [(place, mark) for mark in marks if (place := text.find(mark)) >= 0]
        if places:
            place, mark = min(places)
            self._pending = text[place + len(mark) :]
            self._part = AnswerPart.HEADER
            yield self._segment(part, text[:place] if keeps_space else text[:place].rstrip(), place)
            self._trims_start = True
            yield AnswerSegment(AnswerPart.HEADER, "", len(mark))
            return
        end = len(text) - _n_unfinished(text, marks)
        if not keeps_space:
            end = len(text[:end].rstrip())
        if end:
            self._pending = text[end:]
            yield self._segment(part, text[:end], end)

    def _segment(self, part: AnswerPart, text: str, n_raw: int) -> AnswerSegment:
        if CONTROL_START in text:
            text = _CONTROL.sub("", text)
        if self._trims_start:
            text = text.lstrip()
            self._trims_start = not text
            if text and self._has_text[part]:
                text = BETWEEN + text
        self._has_text[part] = self._has_text[part] or bool(text)
        return AnswerSegment(part, text, n_raw)


def _longest_start(text: str, marks: Iterable[str]) -> str:
    return max((mark for mark in marks if text.startswith(mark)), key=len, default="")


def _n_unfinished(text: str, marks: Iterable[str]) -> int:
    """Return the length of the longest end of ``text`` that begins a mark."""
    longest = max(map(len, marks), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0
