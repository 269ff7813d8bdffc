"""Bodies of /v1/chat/completions, decoded into the requests of a chat turn.

What this service cannot do yet is refused with the code ``unsupported`` and the name of the field; other unknown fields
are ignored.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from chat.enums import MessageRole, Strategy
from chat.schemas.chat_bodies import MAX_MESSAGES, RunOptionsBody, TokenCount, run_options, set_fields
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import MAX_TOP_K, TopK, clamped
from chat.schemas.identifiers import existing_id
from chat.schemas.openai.messages import OpenAIMessage, dialogue_of, unsupported
from chat.schemas.openai.tool_bodies import ToolBodies, ToolChoice, tool_use
from chat.schemas.output_format import format_schema
from chat.schemas.requests import DEFAULT_RAG_TOP_K, QUARTER_CONTEXT, ChatRequest
from chat.schemas.scalars import NonEmptyText, RecallChoice, Text
from chat.schemas.tool_use import tools_grammar
from chat.tool_calling.tools import ToolMode, ToolUse

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_METADATA = 16

ChoiceCount = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, description="-1: one is drawn.")]
ModelName = Annotated[Text, Meta(max_length=256)]
MetadataKey = Annotated[NonEmptyText, Meta(max_length=64)]
MetadataValue = Annotated[Text, Meta(max_length=512)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None


class SamplingBody(RunOptionsBody, frozen=True, kw_only=True):
    """Options of all completions: OpenAI's, and llama-server's and this service's own beside them."""

    model: ModelName | None = None
    seed: Seed | None = None
    n: ChoiceCount | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_progress: Annotated[bool, Meta(description="Chunks with `prompt_progress`, of a chat.")] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "needs stream")

    @property
    def has_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatCompletionBody(SamplingBody, frozen=True, kw_only=True):
    """A chat turn in OpenAI's form. Without ``max_tokens`` an answer may take a quarter of the context.

    ``store`` false: nothing is kept. ``conversation_id``, ``use_rag``, ``rag_top_k``, ``strategy`` and ``recall`` are
    as in /chat.
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
    recall: RecallChoice | None = None
    tools: ToolBodies | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    # The names of Transformers for a last message of the assistant that is continued, which happens here anyway.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Refused below unless they ask for nothing.
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", "needs logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            raise FieldError("add_generation_prompt", "cannot be true together with continue_final_message")
        if self.continue_final_message and self.messages[-1].role is not MessageRole.ASSISTANT:
            raise FieldError("continue_final_message", "needs a last message of the assistant")


@dataclass(frozen=True, kw_only=True)
class CompletionCall:
    """A decoded call besides the turn that it asks for."""

    model: str | None
    is_stream: bool
    has_usage_chunk: bool
    calls_tools: bool = False  # its answers may
    returns_progress: bool = False  # of the prompt
    returns_logprobs: bool = False

    @classmethod
    def of(cls, body: SamplingBody) -> "CompletionCall":
        return cls(
            model=body.model,
            is_stream=bool(body.stream),
            has_usage_chunk=body.has_usage_chunk,
            returns_progress=bool(body.return_progress),
        )


# Values of a field that ask for nothing; every other one is refused.
_WITHOUT_EFFECT: dict[str, tuple[object, ...]] = {
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
    messages, prefill = dialogue_of(body.messages)
    use = tool_use(body.tools, body.tool_choice, parallel=body.parallel_tool_calls)
    options = completion_options(body, body.max_completion_tokens) | tool_options(body, use)
    if prefill and options["grammar"]:
        raise unsupported("messages", "the last message cannot begin an answer that has a form or may call tools")
    # A continued answer would be stored without its beginning.
    options |= set_fields(body, ("use_rag", "strategy", "recall", "store")) | ({"store": False} if prefill else {})
    request = ChatRequest(
        **options,
        has_store_default=body.store is None,
        rag_top_k=clamped(body.rag_top_k, DEFAULT_RAG_TOP_K, MAX_TOP_K),
        n_logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
        messages=messages,
        prefill=prefill,
        tool_use=use,
        metadata=body.metadata or {},
        conversation_id=existing_id(body.conversation_id, field="conversation_id", noun="conversation"),
    )
    call = replace(CompletionCall.of(body), calls_tools=bool(use and use.offered), returns_logprobs=bool(body.logprobs))
    return call, request


def tool_options(body: RunOptionsBody, use: ToolUse | None) -> dict[str, Any]:
    """Return the options of a run whose answer may call tools. Raises InvalidRequest."""
    if use is None or not use.offered:
        return {}
    text_schema = None
    if body.grammar:
        raise unsupported("grammar", "a grammar cannot be combined with tools")
    if body.response_format is not None and body.response_format.type in ("regex", "lark"):
        raise unsupported("response_format.type", "only forms of JSON can be combined with tools")
    if body.response_format is not None and body.response_format.type != "text":
        text_schema, _ = format_schema(body.response_format, field="response_format")
    if body.json_schema is not None:
        text_schema = body.json_schema
    grammar = tools_grammar(
        use, schema_path_of=lambda index: f"tools[{index}].function.parameters", text_schema=text_schema
    )
    return {"grammar": grammar, "grammar_has_text": use.mode is ToolMode.AUTO and text_schema is None}


def completion_options(body: SamplingBody, max_tokens: int | None = None) -> dict[str, Any]:
    """Return the options of a run; without ``max_tokens`` an answer may take a quarter of the context."""
    options = {"max_tokens": QUARTER_CONTEXT} | openai_options(body)
    return options | {"max_tokens": max_tokens} if max_tokens else options


def openai_options(body: RunOptionsBody) -> dict[str, Any]:
    """Return the options of a run, with penalties as OpenAI defines them unless ``repeat_last_n`` asks for others."""
    return run_options(body) | {"penalizes_answer": body.repeat_last_n is None}
