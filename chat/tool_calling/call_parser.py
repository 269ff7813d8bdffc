"""Text and calls of an answer, taken apart while it grows. Knows no wire format.

The grammar has fixed everything around the arguments, so that no call can be malformed, only cut by ``max_tokens``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from chat.tool_calling.call_text import AFTER_NAME, BEFORE_NAME, CALL_END, CALL_START


@dataclass(frozen=True)
class AnswerDelta:
    """Text of the answer outside of the calls."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call begins; ``index`` counts the calls of the answer from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class ArgumentsDelta:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


CallEvent = AnswerDelta | CallStart | ArgumentsDelta


@dataclass
class ParsedCall:
    name: str
    arguments: str = ""


@dataclass(frozen=True)
class ParsedAnswer:
    text: str
    calls: tuple[ParsedCall, ...]


class _Part(Enum):
    TEXT = "text"
    NAME = "name"  # from the start of a call to its arguments
    ARGUMENTS = "arguments"
    TAIL = "tail"  # from the end of the arguments to the end of the call


class ToolCallParser:
    """Takes an answer in pieces of any size; the events' texts do not depend on them.

    White space between text and a call belongs to neither.
    """

    def __init__(self) -> None:
        self.n_calls = 0
        self._part = _Part.TEXT
        self._pending = ""
        self._end = _ObjectEnd()

    def push(self, text: str) -> list[CallEvent]:
        self._pending += text
        events: list[CallEvent] = []
        part = None
        while part is not self._part:
            part = self._part
            events += self._step()
        return events

    def flush(self) -> list[CallEvent]:
        """Return what was held back at the end; a call that was cut before its arguments is left out."""
        if self._part is not _Part.TEXT or self.n_calls or not self._pending:
            return []
        return [AnswerDelta(self._pending)]

    def _step(self) -> Iterator[CallEvent]:
        match self._part:
            case _Part.TEXT:
                yield from self._text()
            case _Part.NAME:
                yield from self._name()
            case _Part.ARGUMENTS:
                yield from self._arguments()
            case _Part.TAIL:
                _, end, rest = self._pending.partition(CALL_END)
                if end:
                    self._pending, self._part = rest, _Part.TEXT

    def _text(self) -> Iterator[CallEvent]:
        before, start, rest = self._pending.partition(CALL_START)
        if start:
            released, self._pending, self._part = before.rstrip(), rest, _Part.NAME
        else:
            n_held = _n_unfinished(before)
            released = before[: len(before) - n_held].rstrip()
            self._pending = before[len(released) :]
        if released:
            yield AnswerDelta(released)

    def _name(self) -> Iterator[CallEvent]:
        name, after, rest = self._pending.removeprefix(BEFORE_NAME).partition(AFTER_NAME)
        if after:
            self._pending, self._part, self._end = rest, _Part.ARGUMENTS, _ObjectEnd()
            yield CallStart(self.n_calls, name)
            self.n_calls += 1

    def _arguments(self) -> Iterator[CallEvent]:
        end = self._end.find(self._pending)
        text, self._pending = self._pending[:end], self._pending[len(self._pending) if end is None else end :]
        if end is not None:
            self._part = _Part.TAIL
        if text:
            yield ArgumentsDelta(self.n_calls - 1, text)


class _ObjectEnd:
    """Search for the end of a JSON object in a growing text."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def find(self, text: str) -> int | None:
        """Return the place behind the object's last brace; None when ``text`` goes on within it."""
        for place, character in enumerate(text, 1):
            if self._in_string:
                self._in_string = self._is_escaped or character != '"'
                self._is_escaped = character == "\\" and not self._is_escaped
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    return place
        return None


def parse_answer(text: str) -> ParsedAnswer:
    """Take a whole answer apart."""
    parser = ToolCallParser()
    texts: list[str] = []
    calls: list[ParsedCall] = []
    for event in (*parser.push(text), *parser.flush()):
        match event:
            case AnswerDelta(more):
                texts.append(more)
            case CallStart(_, name):
                calls.append(ParsedCall(name))
            case ArgumentsDelta(index, more):
                calls[index].arguments += more
    return ParsedAnswer("".join(texts), tuple(calls))


def _n_unfinished(text: str) -> int:
    """Return the length of the longest end of ``text`` that begins a call."""
    for length in range(min(len(CALL_START) - 1, len(text)), 0, -1):
        if CALL_START.startswith(text[-length:]):
            return length
    return 0
