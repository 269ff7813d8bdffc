"""Bodies of POST /v1/responses, decoded into the requests of a chat turn.

What this service cannot do yet is refused with the code ``unsupported`` and the name of the field; other unknown fields
are ignored.
"""

import uuid
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.enums import Effort, Strategy
from chat.errors import NotFound
from chat.schemas.chat_bodies import EFFORTS, MAX_MESSAGES, RunOptionsBody, set_fields
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import MAX_TOP_K, TopK, clamped
from chat.schemas.identifiers import existing_id
from chat.schemas.metadata import UNSTORABLE, is_storable
from chat.schemas.openai.chat_bodies import (
    MAX_METADATA,
    MAX_TOP_LOGPROBS,
    MetadataKey,
    MetadataValue,
    ModelName,
    openai_options,
)
from chat.schemas.openai.messages import unsupported
from chat.schemas.output_format import Schema, schema_grammar
from chat.schemas.requests import DEFAULT_RAG_TOP_K, QUARTER_CONTEXT, ChatRequest
from chat.schemas.responses.identifiers import generation_id_of
from chat.schemas.responses.items import InputItem, outputs_of_earlier_calls, response_input
from chat.schemas.responses.tools import ResponseToolChoice, ResponseTools, response_tool_use
from chat.schemas.scalars import NonEmptyText, RecallChoice, Text
from chat.schemas.tool_use import tools_grammar
from chat.tool_calling.tools import ToolMode, ToolUse
from inference.engine.grammar.limits import MAX_DEPTH
from inference.engine.grammar.schema_parts import JsonSchema
from inference.engine.grammar.sources import ANY_OBJECT

LOGPROBS = "message.output_text.logprobs"
MAX_TAG_CHARS = 512

Tag = Annotated[Text, Meta(max_length=MAX_TAG_CHARS)]
# All but the first ask for parts of items that no answer of this service has.
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ConversationReference(msgspec.Struct, frozen=True, kw_only=True):
    """A stored conversation by its id."""

    id: NonEmptyText


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The form of the answer. A schema is always obeyed; ``strict`` and ``description`` change nothing."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[Text, Meta(max_length=256)] | None = None
    schema: Schema | None = None
    description: Text | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        for name in ("name", "schema") if self.type == "json_schema" else ():
            if getattr(self, name) is None:
                raise FieldError(name, "is required")
        # Repeated in the response, also where it is not used.
        if self.type != "json_schema" and not is_storable(self.schema, MAX_DEPTH):
            raise FieldError("schema", UNSTORABLE)

    @property
    def json_schema(self) -> JsonSchema | None:
        """The schema that the answer obeys; None for plain text."""
        return {"text": None, "json_object": ANY_OBJECT, "json_schema": self.schema}[self.type]

    @property
    def grammar(self) -> str:
        """Raises InvalidRequest with the path of the part that cannot be compiled."""
        schema = self.json_schema
        return "" if schema is None else schema_grammar(schema, field="text.format.schema")


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The amount of thought, for models that think: ``effort`` is as ``reasoning_effort``, which takes precedence. Both
    fields are repeated in the response; an unknown effort counts as none given."""

    effort: Annotated[Text, Meta(max_length=32)] | None = None
    summary: Annotated[Text, Meta(max_length=32)] | None = None


class ResponseStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Events are never padded."""

    include_obfuscation: bool | None = None


# Fields that a response repeats as they were sent.
_REPEATED = (
    "instructions",
    "previous_response_id",
    "max_output_tokens",
    "top_logprobs",
    "parallel_tool_calls",
    "max_tool_calls",
    "user",
    "safety_identifier",
    "prompt_cache_key",
)


class ResponseBody(RunOptionsBody, frozen=True, kw_only=True):
    """A turn in the form of OpenAI's Responses. Without ``max_output_tokens`` an answer may take a quarter of the
    context.

    ``instructions`` count for this turn alone. ``truncation`` ``auto`` leaves out the oldest turns of a dialogue that
    does not fit; else it is refused. ``use_rag``, ``rag_top_k``, ``strategy`` and ``recall`` are as in /chat.
    """

    input: Text | Annotated[list[InputItem], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    model: ModelName | None = None
    instructions: Text | None = None
    previous_response_id: Text | None = None
    conversation: Text | ConversationReference | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA)] | None = None
    include: Annotated[list[Includable], Meta(max_length=50)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningOptions | None = None
    tools: ResponseTools | None = None
    tool_choice: ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    user: Tag | None = None
    safety_identifier: Tag | None = None
    prompt_cache_key: Tag | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    use_rag: bool | None = None
    rag_top_k: TopK | None = None
    strategy: Strategy | None = None
    recall: RecallChoice | None = None
    # Refused below.
    prompt: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "needs stream")
        if self.background and self.store is False:
            raise FieldError("store", "must be true for a background response")
        if self.previous_response_id and self.conversation:
            raise FieldError("conversation", "cannot be given together with previous_response_id")
        if self.text and self.text.format and (self.response_format or self.json_schema or self.grammar):
            raise FieldError("text.format", "cannot be combined with response_format, json_schema or grammar")
        if self.input is None:
            raise FieldError("input", "is required")

    @property
    def chosen_effort(self) -> Effort | None:
        name = self.reasoning.effort if self.reasoning else None
        return super().chosen_effort or EFFORTS.get(name or "")

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ConversationReference) else self.conversation

    @property
    def truncation_strategy(self) -> Strategy:
        return Strategy.TRUNCATE if self.truncation == "auto" else Strategy.ERROR

    def call_details(self, request: ChatRequest) -> dict[str, Any]:
        """Return the facts of the call that its response repeats."""
        details = set_fields(self, _REPEATED) | {
            "background": bool(self.background),
            "store": request.store,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "truncation": self.truncation or "disabled",
        }
        if self.metadata:
            details["metadata"] = dict(self.metadata)
        if self.tools:
            details |= {"tools": [msgspec.to_builtins(tool) for tool in self.tools]}
            details["tool_choice"] = msgspec.to_builtins(self.tool_choice or "auto")
        if self.text and self.text.format:
            details["format"] = msgspec.to_builtins(self.text.format)
        if self.reasoning:
            details["reasoning"] = msgspec.to_builtins(self.reasoning)
        if self.text and self.text.verbosity:
            details["verbosity"] = self.text.verbosity
        return details


@dataclass(frozen=True, kw_only=True)
class ResponseCall:
    """A decoded call besides the turn that it asks for."""

    model: str | None
    is_stream: bool
    is_background: bool


def responses_request(data: object) -> tuple[ResponseCall, ChatRequest]:
    """Return the typed request. Raises InvalidRequest with the field's path, NotFound for an impossible id."""
    body = decode(ResponseBody, data)
    if body.prompt is not None:
        raise unsupported("prompt", "stored prompts are not supported")
    follows = _previous(body.previous_response_id)
    conversation_id = existing_id(body.conversation_id, field="conversation", noun="conversation")
    appends = bool(follows or conversation_id)
    items = response_input(body.input or "", begins=not appends)
    options = {"max_tokens": QUARTER_CONTEXT} | openai_options(body)
    if body.max_output_tokens is not None:
        options["max_tokens"] = body.max_output_tokens
    use = response_tool_use(body.tools, body.tool_choice, parallel=body.parallel_tool_calls)
    options |= _form(body, use)
    has_logprobs = LOGPROBS in (body.include or ())
    request = ChatRequest(
        **options
        | {"strategy": body.truncation_strategy}
        | set_fields(body, ("use_rag", "strategy", "recall", "store")),
        rag_top_k=clamped(body.rag_top_k, DEFAULT_RAG_TOP_K, MAX_TOP_K),
        n_logprobs=max(1, body.top_logprobs or 0) if has_logprobs else 0,
        messages=items.dialogue,
        tool_use=use,
        conversation_id=conversation_id,
        follows=follows,
        appends=appends,
        outputs=tuple(outputs_of_earlier_calls(body.input)) if appends and isinstance(body.input, list) else (),
        instructions=(body.instructions or "").strip(),
    )
    call = ResponseCall(model=body.model, is_stream=bool(body.stream), is_background=bool(body.background))
    return call, replace(request, response=body.call_details(request) | items.facts)


def _form(body: ResponseBody, use: ToolUse | None) -> dict[str, Any]:
    """Return the grammar that the answer obeys. Raises InvalidRequest with the path of what cannot be compiled."""
    text_format = body.text.format if body.text else None
    if not (use and use.offered):
        return {"grammar": text_format.grammar} if text_format else {}
    for name in ("grammar", "json_schema", "response_format"):
        if getattr(body, name):
            raise unsupported(name, f"{name} cannot be combined with tools; use text.format")
    schema = text_format.json_schema if text_format else None
    grammar = tools_grammar(use, schema_path_of=lambda index: f"tools[{index}].parameters", text_schema=schema)
    return {"grammar": grammar, "grammar_has_text": use.mode is ToolMode.AUTO and schema is None}


def _previous(text: str | None) -> uuid.UUID | None:
    if not text:
        return None
    generation_id = generation_id_of(text)
    if generation_id is None:
        raise NotFound("there is no such response", field="previous_response_id")
    return generation_id
