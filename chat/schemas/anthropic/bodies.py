"""Bodies of /v1/messages and /v1/messages/count_tokens, decoded into the requests of a chat turn.

What this service cannot do is refused with the name of the field; other unknown fields are ignored.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.enums import Effort, Strategy
from chat.schemas.anthropic.messages import AnthropicMessage, TextBlockBody, dialogue_of_messages
from chat.schemas.anthropic.tools import AnthropicToolChoice, AnthropicTools, anthropic_tool_use
from chat.schemas.chat_bodies import EFFORTS, MAX_MESSAGES, RunOptionsBody, StopText, run_options, set_fields
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import MAX_TOP_K, TopK, clamped
from chat.schemas.identifiers import existing_id
from chat.schemas.openai.chat_bodies import ModelName
from chat.schemas.openai.messages import unsupported
from chat.schemas.output_format import Schema, schema_grammar
from chat.schemas.requests import DEFAULT_RAG_TOP_K, ChatRequest
from chat.schemas.scalars import RecallChoice, Text
from chat.schemas.tool_use import tools_grammar
from chat.tool_calling.tools import ToolMode, ToolUse

MAX_STOPS = 16
TOOL_USE_ONLY = ("grammar", "json_schema", "response_format")

Messages = Annotated[list[AnthropicMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]


class ThinkingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Thinking on or off, for a model that can think; ``budget_tokens`` bound its thought."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class JsonOutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON Schema that the answer obeys."""

    type: Literal["json_schema"]
    schema: Schema


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``effort`` bounds the thought of a model that is to think; an unknown one counts as none given."""

    format: JsonOutputFormat | None = None
    effort: Annotated[Text, Meta(max_length=32)] | None = None


class MessageMetadata(msgspec.Struct, frozen=True, kw_only=True):
    user_id: Annotated[Text, Meta(max_length=512)] | None = None


class CountTokensBody(msgspec.Struct, frozen=True, kw_only=True):
    """A dialogue whose tokens are counted as the model would read it."""

    messages: Messages
    model: ModelName | None = None
    system: Text | list[TextBlockBody] | None = None
    tools: AnthropicTools | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None


class MessagesBody(RunOptionsBody, frozen=True, kw_only=True):
    """A turn in the form of Anthropic's Messages. ``use_rag``, ``rag_top_k``, ``strategy``, ``recall``, ``store`` and
    ``conversation_id`` are as in /chat, and so is ``reasoning_effort``, which takes precedence over ``thinking``."""

    model: ModelName
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    messages: Messages
    system: Text | list[TextBlockBody] | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: MessageMetadata | None = None
    tools: AnthropicTools | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    store: bool | None = None
    conversation_id: str | None = None
    use_rag: bool | None = None
    rag_top_k: TopK | None = None
    strategy: Strategy | None = None
    recall: RecallChoice | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stop_sequences and self.stop:
            raise FieldError("stop", "cannot be combined with stop_sequences")

    @property
    def chosen_effort(self) -> Effort | None:
        return super().chosen_effort or _effort(self.thinking, self.output_config)

    @property
    def thought_tokens(self) -> int | None:
        """The most tokens of the thought, unless an effort of this service's own takes its place."""
        is_on = self.thinking is not None and self.thinking.type != "disabled" and super().chosen_effort is None
        return self.thinking.budget_tokens if self.thinking and is_on else None


@dataclass(frozen=True, kw_only=True)
class MessagesCall:
    """A decoded call besides the turn that it asks for."""

    model: str | None
    is_stream: bool = False
    may_call: bool = False
    stops: tuple[str, ...] = ()


def messages_request(data: object) -> tuple[MessagesCall, ChatRequest]:
    """Return the typed request. Raises InvalidRequest with the field's path, NotFound for an impossible id."""
    body = decode(MessagesBody, data)
    messages, prefill = dialogue_of_messages(body.system, body.messages)
    use = anthropic_tool_use(body.tools, body.tool_choice)
    options = run_options(body) | _form(body, use) | {"thought_tokens": body.thought_tokens}
    if body.stop_sequences:
        options["stop"] = tuple(filter(None, body.stop_sequences))
    if prefill and options["grammar"]:
        raise unsupported("messages", "the last message cannot begin an answer that has a form or may use tools")
    # A continued answer would be stored without its beginning.
    options |= set_fields(body, ("use_rag", "strategy", "recall", "store")) | ({"store": False} if prefill else {})
    request = ChatRequest(
        **options,
        rag_top_k=clamped(body.rag_top_k, DEFAULT_RAG_TOP_K, MAX_TOP_K),
        messages=messages,
        prefill=prefill,
        tool_use=use,
        conversation_id=existing_id(body.conversation_id, field="conversation_id", noun="conversation"),
    )
    call = MessagesCall(
        model=body.model,
        is_stream=bool(body.stream),
        may_call=bool(use and use.offered),
        stops=tuple(body.stop_sequences or ()),
    )
    return call, request


def count_tokens_request(data: object) -> tuple[MessagesCall, ChatRequest]:
    """Return the dialogue as a request that is never run. Raises InvalidRequest with the field's path."""
    body = decode(CountTokensBody, data)
    messages, prefill = dialogue_of_messages(body.system, body.messages)
    use = anthropic_tool_use(body.tools, body.tool_choice)
    request = ChatRequest(
        messages=messages,
        prefill=prefill,
        tool_use=use,
        max_tokens=1,
        store=False,
        reasoning_effort=_effort(body.thinking, body.output_config),
    )
    return MessagesCall(model=body.model), request


def _effort(thinking: ThinkingConfig | None, output: OutputConfig | None) -> Effort | None:
    """Return the effort of thought that a body asks for; None: as the model's template has it."""
    if thinking is None:
        return None
    if thinking.type == "disabled":
        return Effort.NONE
    return EFFORTS.get((output and output.effort) or "", Effort.ON)


def _form(body: MessagesBody, use: ToolUse | None) -> dict[str, Any]:
    """Return the grammar that the answer obeys. Raises InvalidRequest with the path of what cannot be compiled."""
    form = body.output_config.format if body.output_config else None
    if form and any(getattr(body, name) for name in TOOL_USE_ONLY):
        raise unsupported("output_config.format", "output_config.format cannot be combined with response_format")
    if not (use and use.offered):
        return {"grammar": schema_grammar(form.schema, field="output_config.format.schema")} if form else {}
    for name in TOOL_USE_ONLY:
        if getattr(body, name):
            raise unsupported(name, f"{name} cannot be combined with tools; use output_config.format")
    grammar = tools_grammar(
        use,
        schema_path_of=lambda index: f"tools[{index}].input_schema",
        text_schema=form.schema if form else None,
    )
    return {"grammar": grammar, "grammar_has_text": use.mode is ToolMode.AUTO and form is None}
