"""The output of a response as it grows: its items, and the steps in which they do.

A pure function of the pieces of thought and text, which come with a stream's lines or from the row. A thought ends
where text begins, a message where a call of a function begins, a call where the next one begins; the rest ends with
the response.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from chat.schemas.openai.chat_answers import TokenLogprob
from chat.tool_calling.call_parser import AnswerDelta, CallEvent, CallStart, ToolCallParser


class OutputKind(Enum):
    THOUGHT = auto()
    MESSAGE = auto()
    CALL = auto()


@dataclass
class GrowingItem:
    """An item; ``number`` counts those of its kind from 0. ``logprobs`` are those of a message: of tokens without text
    they belong to the next one with text."""

    kind: OutputKind
    index: int
    number: int
    name: str = ""  # of the function that is called
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    is_open: bool = True
    precedes_call: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class ItemBegan:
    item: GrowingItem


@dataclass(frozen=True)
class ItemGrew:
    item: GrowingItem
    text: str
    logprobs: list[TokenLogprob]


@dataclass(frozen=True)
class ItemEnded:
    item: GrowingItem


OutputStep = ItemBegan | ItemGrew | ItemEnded


class GrowingOutput:
    """Takes pieces and yields steps; each call has to be consumed whole."""

    def __init__(self, *, may_call: bool) -> None:
        self.items: list[GrowingItem] = []
        self._open: dict[OutputKind, GrowingItem] = {}
        self._parser = ToolCallParser() if may_call else None
        self._waiting: list[TokenLogprob] = []

    def push(self, thought: str, text: str, logprob: TokenLogprob | None = None) -> Iterator[OutputStep]:
        """Add the pieces of one token."""
        if logprob is not None:
            self._waiting.append(logprob)
        if thought:
            self._waiting.clear()
            yield from self._grow(OutputKind.THOUGHT, thought)
        if text and self._parser is None:
            yield from self._text(text)
        elif text and self._parser is not None:
            yield from self._calls(self._parser.push(text))

    def finish(self, *, is_complete: bool) -> Iterator[OutputStep]:
        """Yield the last steps but the end of what is open. A complete output has at least a message or a call."""
        if self._parser is not None:
            yield from self._calls(self._parser.flush())
        if is_complete and all(item.kind is OutputKind.THOUGHT for item in self.items):
            yield from self._end(OutputKind.THOUGHT)
            yield self._begin(OutputKind.MESSAGE)

    def _text(self, text: str) -> Iterator[OutputStep]:
        yield from self._end(OutputKind.THOUGHT)
        yield from self._grow(OutputKind.MESSAGE, text)

    def _calls(self, events: list[CallEvent]) -> Iterator[OutputStep]:
        for event in events:
            if isinstance(event, AnswerDelta):
                yield from self._text(event.text)
            elif isinstance(event, CallStart):
                if message := self._open.get(OutputKind.MESSAGE):
                    message.precedes_call = True
                for kind in OutputKind:
                    yield from self._end(kind)
                yield self._begin(OutputKind.CALL, name=event.name)
            else:
                yield from self._grow(OutputKind.CALL, event.text)

    def _grow(self, kind: OutputKind, text: str) -> Iterator[OutputStep]:
        if kind not in self._open:
            yield self._begin(kind)
        item = self._open[kind]
        item.pieces.append(text)
        logprobs: list[TokenLogprob] = []
        if kind is OutputKind.MESSAGE:
            logprobs, self._waiting = self._waiting, []
            item.logprobs += logprobs
        yield ItemGrew(item, text, logprobs)

    def _begin(self, kind: OutputKind, name: str = "") -> ItemBegan:
        number = sum(item.kind is kind for item in self.items)
        item = GrowingItem(kind, len(self.items), number, name)
        self.items.append(item)
        self._open[kind] = item
        return ItemBegan(item)

    def _end(self, kind: OutputKind) -> Iterator[ItemEnded]:
        if item := self._open.pop(kind, None):
            item.is_open = False
            yield ItemEnded(item)
