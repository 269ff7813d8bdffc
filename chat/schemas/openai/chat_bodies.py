"""Bodies of /v1/chat/completions, decoded into the requests of a chat turn.

What this service cannot do yet is refused with the code ``unsupported`` and the name of the field; other unknown fields
are ignored.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.enums import ChatRole, MessageRole, Strategy
from chat.errors import InvalidRequest, quoted
from chat.schemas.chat_bodies import MAX_MESSAGES, RunOptionsBody, TokenCount, run_options, set_fields
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import MAX_TOP_K, TopK, clamped
from chat.schemas.identifiers import existing_id
from chat.schemas.requests import DEFAULT_RAG_TOP_K, QUARTER_CONTEXT, ChatMessage, ChatRequest
from chat.schemas.scalars import NonEmptyText, Text

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_METADATA = 16
TEXT_PARTS = ("text", "refusal")

ChoiceCount = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="-1: one is drawn.")]
ModelName = Annotated[Text, Meta(max_length=256)]
MetadataKey = Annotated[NonEmptyText, Meta(max_length=64)]
MetadataValue = Annotated[Text, Meta(max_length=512)]


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
    """A message of a dialogue. Text parts are joined by line breaks."""

    role: MessageRole
    content: Text | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None

    def __post_init__(self) -> None:
        if self.content is None and self.role is not MessageRole.ASSISTANT:
            raise FieldError("content", "is required")
        if self.role is MessageRole.TOOL and not self.tool_call_id:
            raise FieldError("tool_call_id", "is required")
        if self.tool_calls and self.role is not MessageRole.ASSISTANT:
            raise FieldError("tool_calls", "belongs to messages of the assistant")

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text or part.refusal or "" for part in self.content)
        return self.content or ""

    @property
    def shown(self) -> str:
        """Text with the calls, as the model reads it."""
        calls = [{"name": call.function.name, "arguments": call.function.arguments} for call in self.tool_calls or ()]
        return "\n".join(filter(None, [self.text, *(json.dumps(call, ensure_ascii=False) for call in calls)]))


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class SamplingBody(RunOptionsBody, frozen=True, kw_only=True):
    """Options of all completions: OpenAI's, and llama-server's and this service's own beside them."""

    model: ModelName | None = None
    seed: Seed | None = None
    n: ChoiceCount | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "needs stream")

    @property
    def has_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatCompletionBody(SamplingBody, frozen=True, kw_only=True):
    """A chat turn in OpenAI's form. Without ``max_tokens`` an answer may take a quarter of the context.

    ``store`` false: nothing is kept. ``conversation_id``, ``use_rag``, ``rag_top_k`` and ``strategy`` are as in /chat.
    """

    messages: Annotated[list[OpenAIMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA)] | None = None
    store: bool | None = None
    conversation_id: str | None = None
    use_rag: bool | None = None
    rag_top_k: TopK | None = None
    strategy: Strategy | None = None
    # Refused below unless they ask for nothing.
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", "needs logprobs")


@dataclass(frozen=True, kw_only=True)
class CompletionCall:
    """A decoded call besides the turn that it asks for."""

    model: str | None
    is_stream: bool
    has_usage_chunk: bool

    @classmethod
    def of(cls, body: SamplingBody) -> "CompletionCall":
        return cls(model=body.model, is_stream=bool(body.stream), has_usage_chunk=body.has_usage_chunk)


# Values of a field that ask for nothing; every other one is refused.
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
}


def chat_completion_request(data: object) -> tuple[CompletionCall, ChatRequest]:
    """Return the typed request. Raises InvalidRequest with the field's path, NotFound for an impossible id."""
    body = decode(ChatCompletionBody, data)
    for name, harmless in _WITHOUT_EFFECT.items():
        value = getattr(body, name)
        if value is not None and value not in harmless:
            raise unsupported(name, f"{name} is not supported yet")
    messages, prefill = _dialogue(body.messages)
    options = completion_options(body, body.max_completion_tokens)
    if prefill and options["grammar"]:
        raise unsupported("messages", "an answer that the last message begins cannot be combined with response_format")
    # A continued answer would be stored without its beginning.
    options |= set_fields(body, ("use_rag", "strategy", "store")) | ({"store": False} if prefill else {})
    request = ChatRequest(
        **options,
        rag_top_k=clamped(body.rag_top_k, DEFAULT_RAG_TOP_K, MAX_TOP_K),
        n_logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
        messages=messages,
        prefill=prefill,
        metadata=body.metadata or {},
        conversation_id=existing_id(body.conversation_id, field="conversation_id", noun="conversation"),
    )
    return CompletionCall.of(body), request


def completion_options(body: SamplingBody, max_tokens: int | None = None) -> dict[str, Any]:
    """Return the options of a run; without ``max_tokens`` an answer may take a quarter of the context."""
    options = {"max_tokens": QUARTER_CONTEXT} | run_options(body)
    return options | {"max_tokens": max_tokens} if max_tokens else options


def unsupported(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, code="unsupported", field=field)


def _dialogue(messages: list[OpenAIMessage]) -> tuple[tuple[ChatMessage, ...], str]:
    """Return the messages in the roles that prompts have, and the beginning of the answer when there is one."""
    for index, message in enumerate(messages):
        _check_parts(index, message)
    _check_tool_messages(messages)
    prefill = ""
    if messages[-1].role is MessageRole.ASSISTANT:
        *messages, last = messages
        prefill = last.shown
    n_system = next((index for index, message in enumerate(messages) if not _is_system(message)), len(messages))
    # An instruction alone is the question; one in the middle is read where it stands.
    n_system = min(n_system, len(messages) - 1)
    if n_system < 0 or messages[-1].role is MessageRole.ASSISTANT:
        raise InvalidRequest("the last message must be of the user, or of the assistant after it", field="messages")
    system = "\n\n".join(message.text for message in messages[:n_system])
    head = [ChatMessage(ChatRole.SYSTEM, system)] if system.strip() else []
    rest = [
        ChatMessage(ChatRole.ASSISTANT if message.role is MessageRole.ASSISTANT else ChatRole.USER, message.shown)
        for message in messages[n_system:]
    ]
    return (*head, *rest), prefill


def _is_system(message: OpenAIMessage) -> bool:
    return message.role in (MessageRole.SYSTEM, MessageRole.DEVELOPER)


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
