"""Bodies of chat turns and raw completions, decoded into the typed requests of ``chat.schemas.requests``.

Unknown fields are ignored, as existing clients send extra ones; null stands for a field that is left out. Rules that
need stored rows (does the conversation exist, does it fit) are the services'.
"""

from dataclasses import fields
from typing import Annotated, Any, Literal

import msgspec
from django.conf import settings
from msgspec import Meta

from chat.enums import ChatRole, Effort, MessageRole, Strategy
from chat.rag.sources import ContextItem
from chat.schemas.dates import IsoDate, check_span
from chat.schemas.decoding import FieldError, decode, invalid_field
from chat.schemas.filters import MAX_TOP_K, Emotions, Names, TopK, TranscriptCount, clamped, source_filters
from chat.schemas.identifiers import existing_id
from chat.schemas.metadata import UNSTORABLE, is_storable
from chat.schemas.output_format import ResponseFormat, Schema, format_grammar, schema_grammar, text_grammar
from chat.schemas.requests import (
    DEFAULT_RAG_TOP_K,
    SEEDS,
    WHOLE_CONTEXT,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    RunOptions,
)
from chat.schemas.scalars import NonEmptyText, RecallChoice, Text
from inference.models import Priority

MAX_MESSAGES = 10_000
MAX_CONTEXT_ITEMS = 200
MAX_TOKEN_ID = 2**31 - 1
MAX_LOGIT_BIASES = 1024
MAX_LOGIT_BIAS = 1e6
DEFAULT_MAX_TOKENS = 0  # some clients send it for "not set"
RANDOM_SEED = -1  # llama-server's value for "draw one"
NO_TOP_K = -1  # vLLM's value for "off"; llama-server's is 0
PRIORITIES = {"interactive": Priority.INTERACTIVE, "batch": Priority.BATCH}

TokenCount = Annotated[
    int, Meta(ge=WHOLE_CONTEXT, le=2**31 - 1, description="0: the default; -1: as many as the context leaves.")
]
StopText = Annotated[Text, Meta(max_length=256, description="An empty one does not count.")]
Penalty = Annotated[float, Meta(ge=-100, le=100)]
RepeatWindow = Annotated[
    int,
    Meta(
        ge=-1,
        le=2**31 - 1,
        description="Tokens of prompt and answer that penalties count; 64 without it. 0: none; -1: all.",
    ),
]
Share = Annotated[float, Meta(ge=0, le=1)]
LogitBias = Annotated[
    dict[str, Any] | list[Any],
    Meta(
        description="Token id to addend; false or null forbids the token. Also a list of [token id, addend].",
        examples=[{"5": 1.5, "6": False}],
    ),
]
EffortName = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh"],
    Meta(
        description="The amount of thought, for models that think: 0, 20, 50 or 80 % of `max_tokens`; none: no thought."
    ),
]
# "max" is Anthropic's.
EFFORTS = {
    "none": Effort.NONE,
    "minimal": Effort.LOW,
    "low": Effort.LOW,
    "medium": Effort.MEDIUM,
    "high": Effort.HIGH,
    "xhigh": Effort.HIGH,
    "max": Effort.HIGH,
}
Context = Annotated[
    str | dict[str, Any] | Annotated[list[str | dict[str, Any]], Meta(max_length=MAX_CONTEXT_ITEMS)],
    Meta(
        description="Documents for the model to see: texts, or objects with `text` (or `content`) and metadata; or one",
        examples=[["The deadline is Friday."]],
    ),
]


class TextPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message. Other kinds of parts (images, audio) are refused."""

    text: Text
    type: Literal["text"] = "text"


class MessageBody(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a dialogue. Text parts are joined by line breaks."""

    role: MessageRole
    content: Text | list[TextPart] | None = None

    def __post_init__(self) -> None:
        # An answer that only called a tool, or was cut before its first token, is part of histories.
        if self.content is None and self.role is not MessageRole.ASSISTANT:
            raise FieldError("content", "is required")
        if self.role is MessageRole.USER and not self.text:
            raise FieldError("content", "must not be empty")

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""

    def as_message(self) -> ChatMessage:
        return ChatMessage(_ROLES[self.role], self.text)


# The chat formats of Gemma know two roles and a system text; the result of a tool comes from the user's side.
_ROLES = {
    MessageRole.SYSTEM: ChatRole.SYSTEM,
    MessageRole.DEVELOPER: ChatRole.SYSTEM,
    MessageRole.USER: ChatRole.USER,
    MessageRole.TOOL: ChatRole.USER,
    MessageRole.ASSISTANT: ChatRole.ASSISTANT,
}


class TemplateVariables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Variables of the model's chat template, as llama-server and vLLM take them; only those about thoughts."""

    enable_thinking: bool | None = None
    thinking: Annotated[bool, Meta(description="The same as `enable_thinking`.")] | None = None
    reasoning_effort: EffortName | None = None


class RunOptionsBody(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling and scheduling; names and meanings are llama-server's.

    ``json_schema`` and ``grammar`` are its short forms of ``response_format``; at most one of the three may be given.
    """

    # The range of the number alone: ``chat.services.validation`` compares it with the context size in use.
    max_tokens: TokenCount | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=NO_TOP_K, le=1_000_000, description="0 and -1: off.")] | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    repeat_last_n: RepeatWindow | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    seed: Annotated[int, Meta(ge=RANDOM_SEED, le=2**32 - 1, description="-1: one is drawn.")] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None
    session_id: Annotated[Text, Meta(max_length=128)] | None = None
    reasoning_effort: EffortName | None = None
    chat_template_kwargs: TemplateVariables | None = None
    priority: Literal["interactive", "batch"] | None = None
    timeout_s: Annotated[float, Meta(ge=0.001)] | None = None
    response_format: ResponseFormat | None = None
    json_schema: Schema | None = None
    grammar: Text | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and self.timeout_s > settings.REQUEST_TIMEOUT_SECS:
            raise FieldError("timeout_s", f"must be at most {settings.REQUEST_TIMEOUT_SECS:g}")
        forms = [name for name in ("response_format", "json_schema", "grammar") if getattr(self, name)]
        if len(forms) > 1:
            raise FieldError(forms[1], f"cannot be combined with {forms[0]}")

    @property
    def answer_grammar(self) -> str:
        """The grammar that the answer obeys, compiled once already; empty: none. Raises InvalidRequest."""
        if self.response_format is not None:
            return format_grammar(self.response_format)
        if self.json_schema is not None:
            return schema_grammar(self.json_schema, field="json_schema")
        return text_grammar(self.grammar, field="grammar") if self.grammar else ""

    @property
    def chosen_effort(self) -> Effort | None:
        """The effort by name, or of the template's variables; None: as the model's template has it."""
        variables = self.chat_template_kwargs or TemplateVariables()
        is_on = variables.thinking if variables.enable_thinking is None else variables.enable_thinking
        name = self.reasoning_effort or variables.reasoning_effort
        if is_on is False:
            return Effort.NONE
        if name is not None:
            return EFFORTS[name]
        return Effort.ON if is_on else None


class ChatBody(RunOptionsBody, frozen=True, kw_only=True):
    """A chat turn: ``messages``, or ``message`` for one message of the user."""

    messages: Annotated[list[MessageBody], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    message: NonEmptyText | None = None
    conversation_id: str | None = None
    replaces: str | None = None
    context: Context | None = None
    use_rag: bool | None = None
    rag_top_k: TopK | None = None
    speakers: Names | None = None
    start_date: IsoDate | None = None
    end_date: IsoDate | None = None
    last_n_transcripts: TranscriptCount | None = None
    bias_emotions: Emotions | None = None
    strategy: Strategy | None = None
    recall: RecallChoice | None = None
    auto_title: (
        Annotated[bool, Meta(description="The model makes the title of a conversation that this turn begins.")] | None
    ) = None
    store: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_span(self.start_date, self.end_date)
        if self.messages is None and self.question is None and not self.replaces:
            raise FieldError("messages", "is required")
        if self.messages is None:
            return
        if self.message is not None:
            raise FieldError("message", "cannot be given together with messages")
        roles = [_ROLES[message.role] for message in self.messages]
        if ChatRole.SYSTEM in roles[1:]:
            raise FieldError(f"messages[{roles.index(ChatRole.SYSTEM, 1)}].role", "may be system in the first only")
        if roles[-1] is not ChatRole.USER:
            raise FieldError(f"messages[{len(roles) - 1}].role", "must be user in the last message")
        if self.conversation_id and len(self.messages) != 1:
            raise FieldError("messages", "must be exactly one new user message when conversation_id is given")

    @property
    def question(self) -> str | None:
        """The short form of one message of the user."""
        return self.message

    @property
    def question_field(self) -> str:
        """The field that has the newest message."""
        return "messages" if self.message is None else "message"


class CompletionBody(RunOptionsBody, frozen=True, kw_only=True):
    """A raw prompt, without a template."""

    prompt: NonEmptyText
    special: Annotated[bool, Meta(description="Names of control tokens in the prompt stand for them.")] | None = None


def chat_request(data: object) -> ChatRequest:
    """Return the typed chat request. Raises InvalidRequest with the field's path, NotFound for an impossible id."""
    body = decode(ChatBody, data)
    return as_chat_request(body, use_rag=body.use_rag, top_k=body.rag_top_k)


def as_chat_request(body: ChatBody, *, use_rag: bool | None, top_k: int | str | None) -> ChatRequest:
    """Return the typed request of a decoded body."""
    conversation_id = existing_id(body.conversation_id, field="conversation_id", noun="conversation")
    replaces = existing_id(body.replaces, field="replaces", noun="message")
    documents = body.context or []
    if isinstance(documents, str | dict):
        documents = [documents]
    messages, message = tuple(item.as_message() for item in body.messages or ()), body.question
    if message is not None and not (conversation_id or replaces):
        messages, message = (ChatMessage(ChatRole.USER, message),), None
    return ChatRequest(
        **run_options(body),
        **set_fields(body, ("strategy", "recall", "auto_title", "store")),
        use_rag=use_rag,
        rag_top_k=clamped(top_k, DEFAULT_RAG_TOP_K, MAX_TOP_K),
        has_store_default=body.store is None and body.message is None,
        messages=messages,
        message=message,
        written_to=body.question_field,
        conversation_id=conversation_id,
        replaces=replaces,
        context=tuple(_context_item(item, f"context[{n}]") for n, item in enumerate(documents) if item != ""),
        filters=source_filters(body),
    )


def completion_request(data: object) -> CompletionRequest:
    """Return the typed request for a raw completion. Raises InvalidRequest with the field's path."""
    body = decode(CompletionBody, data)
    return CompletionRequest(prompt=body.prompt, **run_options(body), **set_fields(body, ("special",)))


def set_fields(body: msgspec.Struct, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that were sent: the defaults are those of the request's class."""
    return {name: value for name in names if (value := getattr(body, name, None)) is not None}


def run_options(body: RunOptionsBody) -> dict[str, Any]:
    options = set_fields(body, tuple(option.name for option in fields(RunOptions))) | {"grammar": body.answer_grammar}
    if body.max_tokens == DEFAULT_MAX_TOKENS:
        del options["max_tokens"]
    if body.seed == RANDOM_SEED:
        del options["seed"]
    elif body.seed is not None:
        options["seed"] = body.seed % SEEDS
    if body.top_k == NO_TOP_K:
        options["top_k"] = 0
    if body.logit_bias is not None:
        pairs = list(body.logit_bias.items()) if isinstance(body.logit_bias, dict) else body.logit_bias
        if len(pairs) > MAX_LOGIT_BIASES:
            raise invalid_field("logit_bias", f"must have at most {MAX_LOGIT_BIASES} entries")
        options["logit_bias"] = dict(_bias(pair) for pair in pairs)
    if body.stop is not None:
        stops = (body.stop,) if isinstance(body.stop, str) else body.stop
        options["stop"] = tuple(stop for stop in stops if stop)
    if (effort := body.chosen_effort) is not None:
        options["reasoning_effort"] = effort
    if body.priority is not None:
        options["priority"] = PRIORITIES[body.priority]
    return options


def _bias(pair: object) -> tuple[int, float | None]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise invalid_field("logit_bias", "must be an object of token ids and numbers, or a list of [token id, number]")
    token, bias = pair
    # Only digits: int() would also read "1_000", " 7 " and other scripts' digits.
    if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 10:
        token = int(token)
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token <= MAX_TOKEN_ID:
        raise invalid_field("logit_bias", "must name tokens by their ids")
    if bias is False or bias is None:
        return token, None
    # NaN compares as not within the limit; a whole number of hundreds of digits has no float.
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not abs(bias) <= MAX_LOGIT_BIAS:
        raise invalid_field("logit_bias", f"must have addends from {-MAX_LOGIT_BIAS:g} to {MAX_LOGIT_BIAS:g}")
    return token, float(bias)


def _context_item(item: str | dict[str, Any], path: str) -> ContextItem:
    document = {"text": item} if isinstance(item, str) else item
    name = "text" if document.get("text") is not None else "content"
    text = document.get(name)
    if not isinstance(text, str):
        raise invalid_field(path, "must be a string or an object with text")
    if not is_storable(document):
        raise invalid_field(path, UNSTORABLE)
    nested = document.get("metadata")
    metadata = {key: value for key, value in document.items() if key not in (name, "text", "metadata")}
    return ContextItem(text=text, metadata=metadata | (nested if isinstance(nested, dict) else {}))
