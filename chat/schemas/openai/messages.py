"""Messages of /v1/chat/completions, and the dialogue that they become."""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

import msgspec

from chat.enums import ChatRole, MessageRole
from chat.errors import InvalidRequest, quoted
from chat.schemas.decoding import FieldError
from chat.schemas.requests import ChatMessage
from chat.schemas.scalars import NonEmptyText, Text
from chat.tool_calling.call_text import answer_text, results_text

TEXT_PARTS = ("text", "refusal")


class ContentPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message; only text is read."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    name: NonEmptyText
    arguments: Text = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that the model made earlier in the dialogue."""

    id: NonEmptyText
    type: Literal["function"] = "function"
    function: CalledFunction


class OpenAIMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a dialogue. Text parts are joined by line breaks. ``reasoning_content``: the thought of an answer,
    which the model reads where its chat template shows it."""

    role: MessageRole
    content: Text | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    reasoning_content: Text | None = None

    def __post_init__(self) -> None:
        if self.content is None and self.role is not MessageRole.ASSISTANT:
            raise FieldError("content", "is required")
        if self.role is MessageRole.TOOL and not self.tool_call_id:
            raise FieldError("tool_call_id", "is required")
        if self.tool_calls and self.role is not MessageRole.ASSISTANT:
            raise FieldError("tool_calls", "belongs to messages of the assistant")
        if self.reasoning_content and self.role is not MessageRole.ASSISTANT:
            raise FieldError("reasoning_content", "belongs to messages of the assistant")

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text or part.refusal or "" for part in self.content)
        return self.content or ""

    @property
    def is_system(self) -> bool:
        return self.role in (MessageRole.SYSTEM, MessageRole.DEVELOPER)

    @property
    def shown(self) -> str:
        """Text with the calls, as the model reads it."""
        calls = [(call.function.name, call.function.arguments) for call in self.tool_calls or ()]
        return answer_text(self.text, calls)


def unsupported(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, code="unsupported", field=field)


def dialogue_of(messages: list[OpenAIMessage]) -> tuple[tuple[ChatMessage, ...], str]:
    """Return the messages in the roles that prompts have, and the beginning of the answer when there is one."""
    for index, message in enumerate(messages):
        _check_parts(index, message)
    _check_tool_messages(messages)
    prefill = ""
    if messages[-1].role is MessageRole.ASSISTANT:
        *messages, last = messages
        prefill = last.shown
    n_system = next((index for index, message in enumerate(messages) if not message.is_system), len(messages))
    # An instruction alone is the question; one in the middle is read where it stands.
    n_system = min(n_system, len(messages) - 1)
    if n_system < 0 or messages[-1].role is MessageRole.ASSISTANT:
        raise InvalidRequest("the last message must be of the user, or of the assistant after it", field="messages")
    system = "\n\n".join(message.text for message in messages[:n_system])
    head = [ChatMessage(ChatRole.SYSTEM, system)] if system.strip() else []
    return (*head, *_turns(messages[n_system:])), prefill


def _turns(messages: list[OpenAIMessage]) -> Iterator[ChatMessage]:
    """Yield messages of the user and the assistant; results of calls that were made together are one."""
    for role, group in groupby(messages, key=lambda message: message.role):
        if role is MessageRole.TOOL:
            yield ChatMessage(ChatRole.USER, results_text(message.text for message in group))
            continue
        for message in group:
            if role is MessageRole.ASSISTANT:
                yield ChatMessage(ChatRole.ASSISTANT, message.shown, message.reasoning_content or "")
            else:
                yield ChatMessage(ChatRole.USER, message.shown)


def _check_parts(index: int, message: OpenAIMessage) -> None:
    for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
        path = f"messages[{index}].content[{number}]"
        if part.type not in TEXT_PARTS:
            raise unsupported(f"{path}.type", f"the model reads text only, not parts of type {quoted(part.type)}")
        if part.text is None and part.refusal is None:
            raise InvalidRequest(f"{path}.text is required", field=f"{path}.text")


def _check_tool_messages(messages: list[OpenAIMessage]) -> None:
    """Every result of a tool belongs to a call of the assistant's message before it."""
    calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role is MessageRole.ASSISTANT:
            calls = {call.id for call in message.tool_calls or ()}
        elif message.role is MessageRole.TOOL and message.tool_call_id not in calls:
            path = f"messages[{index}].tool_call_id"
            raise InvalidRequest(f"{path} names no call of the assistant's message before it", field=path)
        elif message.role is not MessageRole.TOOL:
            calls = set()
