"""Types of the events that a streamed response consists of. ``sequence_number`` counts them from 0."""

from typing import Literal

from msgspec import Struct

from chat.schemas.openai.chat_answers import TokenLogprob
from chat.schemas.responses.answers import (
    OutputItem,
    OutputText,
    ReasoningText,
    ResponseAnswer,
    TextAnnotation,
)


class ResponseStateEvent(Struct, frozen=True, kw_only=True):
    """The response in a new state; one of the last three ends the stream, ``incomplete`` also a cancelled one."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: ResponseAnswer


class OutputItemEvent(Struct, frozen=True, kw_only=True):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class ItemEvent(Struct, frozen=True, kw_only=True):
    """Base of the events within an item."""

    sequence_number: int
    item_id: str
    output_index: int


class ContentEvent(ItemEvent, frozen=True, kw_only=True):
    """Base of the events about one part of an item."""

    content_index: int = 0


class ContentPartEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText | ReasoningText


class TextDeltaEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str
    logprobs: list[TokenLogprob] = []


class TextDoneEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str
    logprobs: list[TokenLogprob] = []


class ReasoningDeltaEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.reasoning_text.delta"] = "response.reasoning_text.delta"
    delta: str


class ReasoningDoneEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.reasoning_text.done"] = "response.reasoning_text.done"
    text: str


class ArgumentsDeltaEvent(ItemEvent, frozen=True, kw_only=True):
    type: Literal["response.function_call_arguments.delta"] = "response.function_call_arguments.delta"
    delta: str


class ArgumentsDoneEvent(ItemEvent, frozen=True, kw_only=True):
    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


class TextAnnotationEvent(ContentEvent, frozen=True, kw_only=True):
    type: Literal["response.output_text.annotation.added"] = "response.output_text.annotation.added"
    annotation_index: int
    annotation: TextAnnotation


class StreamErrorEvent(Struct, frozen=True, kw_only=True):
    """The stream broke; its response may go on. The number is that of the event before it."""

    type: Literal["error"] = "error"
    sequence_number: int
    code: str
    message: str
    param: str | None = None


EVENTS = (
    ResponseStateEvent,
    OutputItemEvent,
    ContentPartEvent,
    TextDeltaEvent,
    TextDoneEvent,
    ReasoningDeltaEvent,
    ReasoningDoneEvent,
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    TextAnnotationEvent,
    StreamErrorEvent,
)
