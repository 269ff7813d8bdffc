"""The output of a response as it grows: its items, one after the other, and the steps in which they grow.

A pure function of the pieces of thought and text, which come with a stream's lines or from the row.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

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
    is_open: bool = True  # it ends where the next one begins, the last with the response

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a call; empty while its text is no JSON object."""
        try:
            value = json.loads(self.text)
        except (ValueError, RecursionError):
            return {}  # cut by max_tokens, or nested by the model without an end
        return value if isinstance(value, dict) else {}


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
        self._parser = ToolCallParser() if may_call else None
        self._waiting: list[TokenLogprob] = []

    @property
    def has_calls(self) -> bool:
        return any(item.kind is OutputKind.CALL for item in self.items)

    def push(self, thought: str, text: str, logprob: TokenLogprob | None = None) -> Iterator[OutputStep]:
        """Add the pieces of one token."""
        if logprob is not None:
            self._waiting.append(logprob)
        if thought:
            self._waiting.clear()
            yield from self._grow(OutputKind.THOUGHT, thought)
        if text and self._parser is None:
            yield from self._grow(OutputKind.MESSAGE, text)
        elif text and self._parser is not None:
            yield from self._calls(self._parser.push(text))

    def finish(self) -> Iterator[OutputStep]:
        """Release what was held back; what is open remains so."""
        if self._parser is not None:
            yield from self._calls(self._parser.flush())

    def answer(self) -> Iterator[OutputStep]:
        """Begin an empty message where there is neither one nor a call."""
        if all(item.kind is OutputKind.THOUGHT for item in self.items):
            yield from self._begin(OutputKind.MESSAGE)

    def _calls(self, events: list[CallEvent]) -> Iterator[OutputStep]:
        for event in events:
            if isinstance(event, AnswerDelta):
                yield from self._grow(OutputKind.MESSAGE, event.text)
            elif isinstance(event, CallStart):
                yield from self._begin(OutputKind.CALL, name=event.name)
            else:
                yield from self._grow(OutputKind.CALL, event.text)

    def _grow(self, kind: OutputKind, text: str) -> Iterator[OutputStep]:
        if not self.items or self.items[-1].kind is not kind:
            yield from self._begin(kind)
        item = self.items[-1]
        item.pieces.append(text)
        logprobs: list[TokenLogprob] = []
        if kind is OutputKind.MESSAGE:
            logprobs, self._waiting = self._waiting, []
            item.logprobs += logprobs
        yield ItemGrew(item, text, logprobs)

    def _begin(self, kind: OutputKind, name: str = "") -> Iterator[OutputStep]:
        if self.items:
            self.items[-1].is_open = False
            yield ItemEnded(self.items[-1])
        number = sum(item.kind is kind for item in self.items)
        self.items.append(GrowingItem(kind, len(self.items), number, name))
        yield ItemBegan(self.items[-1])
