"""Input items of /v1/responses: decoded, and turned into the messages of a dialogue."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from chat.enums import ChatRole
from chat.errors import quoted
from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.openai.messages import unsupported
from chat.schemas.requests import ChatMessage
from chat.schemas.scalars import NonEmptyText, Text
from chat.tool_calling.call_text import answer_text, results_text

MESSAGE, CALL, OUTPUT, REASONING = "message", "function_call", "function_call_output", "reasoning"
TEXT_PARTS = ("input_text", "output_text", "text", "refusal")
THOUGHT_PARTS = ("reasoning_text", "text")
_REQUIRED = {MESSAGE: ("role", "content"), CALL: ("call_id", "name", "arguments"), OUTPUT: ("call_id", "output")}

ItemRole = Literal["user", "assistant", "system", "developer"]
SYSTEM_ROLES = ("system", "developer")


class InputPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an item; only text is read."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None


class InputItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message, a call of a function, its output, or reasoning: the thought before the answer that follows. Text parts
    are joined by line breaks."""

    type: Text | None = None
    role: ItemRole | None = None
    content: Text | list[InputPart] | None = None
    call_id: NonEmptyText | None = None
    name: NonEmptyText | None = None
    arguments: Text | None = None
    output: Text | list[InputPart] | None = None

    def __post_init__(self) -> None:
        for name in _REQUIRED.get(self.kind, ()):
            if getattr(self, name) is None:
                raise FieldError(name, "is required")

    @property
    def kind(self) -> str:
        return self.type or MESSAGE

    @property
    def is_system(self) -> bool:
        return self.kind == MESSAGE and self.role in SYSTEM_ROLES

    @property
    def text(self) -> str:
        content = self.output if self.kind == OUTPUT else self.content
        if isinstance(content, list):
            return "\n".join(part.text or part.refusal or "" for part in content)
        return content or ""


@dataclass(frozen=True)
class ItemGroup:
    """Items that are one message of the dialogue: a message with the calls after it, or outputs in a row."""

    items: tuple[InputItem, ...]
    thought: str = ""  # of an answer

    @property
    def role(self) -> ChatRole:
        return _role(self.items[0])

    @property
    def text(self) -> str:
        """Text as the model reads it."""
        if self.items[0].kind == OUTPUT:
            return results_text(item.text for item in self.items)
        calls = [(item.name or "", item.arguments or "") for item in self.items if item.kind == CALL]
        return answer_text(self.items[0].text, calls)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the items that the message's row lacks; empty for a plain message. Outputs have their lengths."""
        first = self.items[0]
        if first.kind == OUTPUT:
            return {"outputs": [[item.call_id, len(item.text)] for item in self.items]}
        if calls := [item.call_id for item in self.items if item.kind == CALL]:
            return {"calls": calls}
        return {"role": first.role} if first.is_system else {}

    def takes(self, item: InputItem) -> bool:
        """Return whether the item belongs to this message."""
        if item.kind == OUTPUT:
            return self.items[-1].kind == OUTPUT
        return item.kind == CALL and self.role is ChatRole.ASSISTANT


@dataclass(frozen=True)
class ResponseInput:
    """The items of a call. ``begins``: they are a whole dialogue, and instructions before the first message are its
    system prompt; elsewhere instructions are read where they stand."""

    items: tuple[InputItem, ...]
    begins: bool
    thoughts: Mapping[int, str] = field(default_factory=dict)  # before the item with that index

    @property
    def n_system(self) -> int:
        if not self.begins:
            return 0
        n_leading = next((index for index, item in enumerate(self.items) if not item.is_system), len(self.items))
        return min(n_leading, len(self.items) - 1)  # an instruction alone is the question

    @property
    def dialogue(self) -> tuple[ChatMessage, ...]:
        system = "\n\n".join(item.text for item in self.items[: self.n_system])
        head = (ChatMessage(ChatRole.SYSTEM, system),) if system.strip() else ()
        return (*head, *(ChatMessage(group.role, group.text, group.thought) for group in self._groups))

    @property
    def facts(self) -> dict[str, list[Any]]:
        """Facts of the items that are stored beside their messages; empty for plain messages."""
        facts = [group.facts for group in self._groups]
        roles = [item.role for item in self.items[: self.n_system]]
        return ({"items": facts} if any(facts) else {}) | ({"system_roles": roles} if roles else {})

    @property
    def _groups(self) -> list[ItemGroup]:
        groups: list[ItemGroup] = []
        for index, item in enumerate(self.items[self.n_system :], self.n_system):
            thought = self.thoughts.get(index, "")
            if groups and groups[-1].takes(item):
                thought = "\n\n".join(filter(None, (groups[-1].thought, thought)))
                groups[-1] = ItemGroup((*groups[-1].items, item), thought)
            else:
                groups.append(ItemGroup((item,), thought))
        return groups


def _role(item: InputItem) -> ChatRole:
    is_models = item.kind == CALL or (item.kind == MESSAGE and item.role == "assistant")
    return ChatRole.ASSISTANT if is_models else ChatRole.USER


def _check_parts(path: str, content: str | list[InputPart] | None, types: Sequence[str]) -> None:
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if part.type not in types:
            raise unsupported(
                f"{path}[{number}].type", f"the model reads text only, not parts of type {quoted(part.type)}"
            )
        if part.text is None and part.refusal is None:
            raise invalid_field(f"{path}[{number}].text", "is required")


def outputs_of_earlier_calls(items: Sequence[InputItem]) -> Iterator[tuple[str, str]]:
    """Yield path and call id of each output whose call is not among the items before it."""
    calls: set[str | None] = set()
    for index, item in enumerate(items):
        if item.kind == CALL:
            calls.add(item.call_id)
        elif item.kind == OUTPUT and item.call_id not in calls:
            yield f"input[{index}].call_id", item.call_id or ""


def _check_order(items: Sequence[InputItem], *, begins: bool) -> None:
    """Every output of a whole dialogue belongs to a call before it, and the last item is of the user."""
    for path, _ in outputs_of_earlier_calls(items) if begins else ():
        raise invalid_field(path, "names no call before it")
    read = [(index, item) for index, item in enumerate(items) if item.kind != REASONING]
    if not read:
        raise invalid_field("input", "must not be empty")
    index, last = read[-1]
    if _role(last) is ChatRole.ASSISTANT:
        raise invalid_field(f"input[{index}]", "must be of the user: it is the last item")
    if not last.text.strip():
        raise invalid_field(f"input[{index}]", "must not be empty")


def response_input(value: str | list[InputItem], *, begins: bool) -> ResponseInput:
    """Return the items that are read. Raises InvalidRequest with the field's path."""
    if isinstance(value, str):
        if not value.strip():
            raise invalid_field("input", "must not be empty")
        return ResponseInput((InputItem(role="user", content=value),), begins)
    for index, item in enumerate(value):
        if item.kind not in (*_REQUIRED, REASONING):
            raise unsupported(f"input[{index}].type", f"items of type {quoted(item.kind)} are not supported")
        for name in ("content", "output"):
            types = THOUGHT_PARTS if item.kind == REASONING else TEXT_PARTS
            _check_parts(f"input[{index}].{name}", getattr(item, name), types)
    _check_order(value, begins=begins)
    items: list[InputItem] = []
    thoughts: dict[int, list[str]] = {}
    for item in value:
        if item.kind != REASONING:
            items.append(item)
        elif item.text:
            thoughts.setdefault(len(items), []).append(item.text)
    # A thought that no answer follows is not read.
    joined = {
        index: "\n\n".join(texts)
        for index, texts in thoughts.items()
        if index < len(items) and _role(items[index]) is ChatRole.ASSISTANT
    }
    return ResponseInput(tuple(items), begins, joined)
