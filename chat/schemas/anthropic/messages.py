"""Messages of /v1/messages, and the dialogue that they become."""

import json
from typing import Any, Literal

import msgspec

from chat.enums import ChatRole
from chat.errors import quoted
from chat.schemas.decoding import FieldError, invalid_field
from chat.schemas.openai.messages import unsupported
from chat.schemas.requests import ChatMessage
from chat.schemas.scalars import NonEmptyText, Text
from chat.tool_calling.call_text import answer_text, results_text

TEXT, TOOL_USE, TOOL_RESULT = "text", "tool_use", "tool_result"
THINKING = "thinking"
DOCUMENT, SEARCH_RESULT = "document", "search_result"
# A thought that only its author can read.
UNREAD = ("redacted_thinking",)
# Sources whose text is read, with the field that has it; all others are files.
TEXT_SOURCES = {"text": "data", "content": "content"}
_REQUIRED = {
    TEXT: ("text",),
    THINKING: ("thinking",),
    TOOL_USE: ("id", "name", "input"),
    TOOL_RESULT: ("tool_use_id",),
    DOCUMENT: ("source",),
    SEARCH_RESULT: ("content",),
}


class TextBlockBody(msgspec.Struct, frozen=True, kw_only=True):
    """A block of text, the only kind in a system prompt."""

    type: Literal["text"]
    text: Text


class ResultPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a tool's result; only text is read."""

    type: Text
    text: Text | None = None


class DocumentSource(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a document: ``data`` of the type text, ``content`` of the type content."""

    type: Text | None = None
    data: Text | None = None
    content: Text | list[ResultPart] | None = None


class ContentBlockBody(msgspec.Struct, frozen=True, kw_only=True):
    """A block of a message: text, a use of a tool, its result, a thought, a document of text or a search result."""

    type: Text
    text: Text | None = None
    thinking: Text | None = None
    id: NonEmptyText | None = None
    name: NonEmptyText | None = None
    input: dict[str, Any] | None = None
    tool_use_id: NonEmptyText | None = None
    content: Text | list[ResultPart] | None = None
    is_error: bool | None = None
    source: DocumentSource | Text | None = None
    title: Text | None = None
    context: Text | None = None

    def __post_init__(self) -> None:
        for name in _REQUIRED.get(self.type, ()):
            if getattr(self, name) is None:
                raise FieldError(name, "is required")

    @property
    def result(self) -> str:
        """The result of a tool as the model reads it, which learns of a failure by the text alone."""
        text = _joined(self.content)
        return f"Error: {text}".rstrip() if self.is_error else text

    @property
    def read_text(self) -> str:
        """The text of a block beside uses and results of tools and thoughts."""
        if self.type == DOCUMENT and isinstance(self.source, DocumentSource):
            return "\n".join(filter(None, [self.title, self.context, self.source.data or _joined(self.source.content)]))
        if self.type == SEARCH_RESULT:
            source = self.source if isinstance(self.source, str) else None
            return "\n".join(filter(None, [self.title, source, _joined(self.content)]))
        return self.text or "" if self.type == TEXT else ""

    def check_parts(self, path: str) -> None:
        """Raises InvalidRequest for a part of a result that is no text, or a document that is none."""
        _check_texts(f"{path}.content", self.content)
        if self.type != DOCUMENT:
            return
        source = self.source if isinstance(self.source, DocumentSource) else DocumentSource()
        name = TEXT_SOURCES.get(source.type or "")
        if name is None:
            message = f"the model reads text only, not documents of type {quoted(source.type)}"
            raise unsupported(f"{path}.source.type", message)
        if getattr(source, name) is None:
            raise invalid_field(f"{path}.source.{name}", "is required")
        _check_texts(f"{path}.source.content", source.content)


def _joined(content: str | list[ResultPart] | None) -> str:
    return "\n".join(part.text or "" for part in content) if isinstance(content, list) else content or ""


def _check_texts(path: str, content: str | list[ResultPart] | None) -> None:
    for number, part in enumerate(content if isinstance(content, list) else ()):
        place = f"{path}[{number}]"
        if part.type != TEXT:
            raise unsupported(f"{place}.type", f"the model reads text only, not parts of type {quoted(part.type)}")
        if part.text is None:
            raise invalid_field(f"{place}.text", "is required")


class AnthropicMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a dialogue. Blocks of text, documents and search results are joined by line breaks."""

    role: Literal["user", "assistant", "system"]
    content: Text | list[ContentBlockBody]

    @property
    def blocks(self) -> list[ContentBlockBody]:
        if isinstance(self.content, str):
            return [ContentBlockBody(type=TEXT, text=self.content)]
        return self.content

    @property
    def text(self) -> str:
        """Text as the model reads it: results of tools first, uses of tools last."""
        blocks = self.blocks
        results = results_text(block.result for block in blocks if block.type == TOOL_RESULT)
        text = "\n".join(filter(None, [results, *(block.read_text for block in blocks)]))
        calls = [(block.name or "", _arguments(block)) for block in blocks if block.type == TOOL_USE]
        return answer_text(text, calls)

    @property
    def thought(self) -> str:
        """The thought before an answer, which the model reads where its chat template shows it."""
        return "\n\n".join(filter(None, (block.thinking for block in self.blocks)))

    def check_blocks(self, path: str) -> None:
        """Raises InvalidRequest for a block that is not read, or not in a message of this role."""
        for number, block in enumerate(self.blocks):
            place = f"{path}.content[{number}]"
            if block.type not in (*_REQUIRED, *UNREAD):
                message = f"the model reads text only, not blocks of type {quoted(block.type)}"
                raise unsupported(f"{place}.type", message)
            if block.type == TOOL_USE and self.role != "assistant":
                raise invalid_field(f"{place}.type", "must not be tool_use in a message of the user")
            if block.type == TOOL_RESULT and self.role != "user":
                raise invalid_field(f"{place}.type", "must not be tool_result outside of a message of the user")
            if block.type in (DOCUMENT, SEARCH_RESULT) and self.role != "user":
                raise invalid_field(f"{place}.type", f"must not be {block.type} outside of a message of the user")
            if block.type == THINKING and self.role != "assistant":
                raise invalid_field(f"{place}.type", "must not be thinking outside of a message of the assistant")
            block.check_parts(place)


def dialogue_of_messages(
    system: str | list[TextBlockBody] | None, messages: list[AnthropicMessage]
) -> tuple[tuple[ChatMessage, ...], str]:
    """Return the messages in the roles that prompts have, and the beginning of the answer when there is one.

    Raises InvalidRequest with the path of the wrong block.
    """
    for index, message in enumerate(messages):
        message.check_blocks(f"messages[{index}]")
    _check_results(messages)
    prefill, dialogue = "", messages
    if messages[-1].role == "assistant":
        *dialogue, last = messages
        prefill = last.text
    if not dialogue or dialogue[-1].role == "assistant":
        raise invalid_field("messages", "must end with a message of the user, or of the assistant after one")
    if not dialogue[-1].text.strip():
        raise invalid_field(f"messages[{len(dialogue) - 1}].content", "must not be empty")
    text = "\n\n".join(block.text for block in system) if isinstance(system, list) else system or ""
    head = [ChatMessage(ChatRole.SYSTEM, text)] if text.strip() else []
    rest = [
        # Instructions in the middle are read where they stand.
        ChatMessage(ChatRole.ASSISTANT if message.role == "assistant" else ChatRole.USER, message.text, message.thought)
        for message in dialogue
    ]
    return (*head, *rest), prefill


def _arguments(block: ContentBlockBody) -> str:
    return json.dumps(block.input, ensure_ascii=False)


def _check_results(messages: list[AnthropicMessage]) -> None:
    """Every result belongs to a use of a tool in the message before it."""
    uses: set[str | None] = set()
    for index, message in enumerate(messages):
        for number, block in enumerate(message.blocks):
            if block.type == TOOL_RESULT and block.tool_use_id not in uses:
                path = f"messages[{index}].content[{number}].tool_use_id"
                raise invalid_field(path, "names no tool_use of the message before it")
        uses = {block.id for block in message.blocks if block.type == TOOL_USE}
