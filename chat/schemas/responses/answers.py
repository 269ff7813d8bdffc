"""Types of what /v1/responses gives: a response, its items, and lists of items."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from chat.schemas.answer_types import SourceAnswer
from chat.schemas.openai.chat_answers import Timings, TokenLogprob

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class TextAnnotation(Struct, frozen=True, kw_only=True):
    """A citation of a source; ``url`` names the memory."""

    type: Literal["url_citation"] = "url_citation"
    start_index: int
    end_index: int
    title: str
    url: str
    source: SourceAnswer


class OutputText(Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[TextAnnotation] = []
    logprobs: list[TokenLogprob] = []


class InputText(Struct, frozen=True, kw_only=True):
    type: Literal["input_text"] = "input_text"
    text: str


class OutputMessage(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """An answer as an item."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: list[OutputText]


class ReasoningText(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    text: str


class ReasoningItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """A thought of a reasoning model, which is no part of its answer."""

    id: str
    status: ItemStatus
    summary: list[dict[str, str]] = []
    content: list[ReasoningText]


class InputMessageItem(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    status: ItemStatus = "completed"
    content: list[InputText]


class FunctionCallItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call of a function; ``arguments`` is JSON, cut where ``status`` is incomplete."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"


class FunctionOutputItem(Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function_call_output"] = "function_call_output"
    call_id: str
    output: str
    status: ItemStatus = "completed"


OutputItem = ReasoningItem | OutputMessage | FunctionCallItem
AnyItem = OutputItem | InputMessageItem | FunctionOutputItem


class ItemList(Struct, frozen=True, kw_only=True):
    """A page of items; ids are empty texts when there are none."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class InputTokenDetails(Struct, frozen=True, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokenDetails(Struct, frozen=True, kw_only=True):
    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Tokens of a response; ``cached_tokens`` of the input were computed before."""

    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: OutputTokenDetails
    total_tokens: int


class ResponseFailure(Struct, frozen=True, kw_only=True):
    """``reason`` is this service's code of the error, ``code`` one of OpenAI's."""

    code: Literal["server_error", "invalid_prompt"]
    message: str
    reason: str


class IncompleteDetails(Struct, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens"]


class ResponseConversation(Struct, frozen=True, kw_only=True):
    id: str


class ReasoningConfig(Struct, frozen=True, kw_only=True):
    effort: str | None = None
    summary: str | None = None


class AnswerTextConfig(Struct, frozen=True, kw_only=True):
    format: dict[str, Any]
    verbosity: str


class ResponseAnswer(Struct, frozen=True, kw_only=True):
    """A response. ``output`` is empty and ``usage`` null until it ends; ``conversation`` is null when it is not
    stored. ``timings`` and ``rag_error`` are extensions."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    background: bool
    completed_at: int | None
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ReasoningConfig
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: AnswerTextConfig
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]
    conversation: ResponseConversation | None
    timings: Timings | UnsetType = UNSET
    rag_error: str | UnsetType = UNSET


class DeletedResponse(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True
