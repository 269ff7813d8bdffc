"""Rendering of a turn's lines as a message of Anthropic's API."""

import uuid
from typing import Any

from msgspec import UNSET

from chat.schemas.anthropic.answers import (
    AnswerBlock,
    MessageAnswerBody,
    MessageUsage,
    SourceCitation,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ThinkingDetails,
    ToolUseBlock,
)
from chat.schemas.openai.rendering import annotations_of
from chat.schemas.responses.output import GrowingItem, GrowingOutput, OutputKind
from inference.enums import FinishReason

Line = dict[str, Any]


def message_id(generation_id: uuid.UUID) -> str:
    return f"msg_{generation_id.hex}"


def begun_message(
    generation_id: uuid.UUID, *, model: str, n_prompt: int, conversation_id: str | None
) -> MessageAnswerBody:
    """Return a message before its first block. What of the prompt was computed before is not known yet."""
    return MessageAnswerBody(
        id=message_id(generation_id),
        model=model,
        content=[],
        stop_reason=None,
        stop_sequence=None,
        usage=MessageUsage(input_tokens=n_prompt, output_tokens=0),
        conversation_id=conversation_id,
    )


def whole_message(
    generation_id: uuid.UUID, *, model: str, output: GrowingOutput, last: Line, stop: str | None
) -> MessageAnswerBody:
    """Return an ended message; ``stop`` is the stop sequence that ended it."""
    return MessageAnswerBody(
        id=message_id(generation_id),
        model=model,
        content=[block_of(item, generation_id, last) for item in output.items],
        stop_reason=stop_reason(output, last, stop),
        stop_sequence=stop,
        usage=usage_of_line(last),
        conversation_id=last["conversation_id"],
    )


def begun_block(item: GrowingItem, generation_id: uuid.UUID) -> AnswerBlock:
    match item.kind:
        case OutputKind.THOUGHT:
            return ThinkingBlock(thinking="")
        case OutputKind.CALL:
            return ToolUseBlock(id=tool_use_id(generation_id, item.number), name=item.name, input={})
        case OutputKind.MESSAGE:
            return TextBlock(text="")


def block_of(item: GrowingItem, generation_id: uuid.UUID, last: Line) -> AnswerBlock:
    match item.kind:
        case OutputKind.THOUGHT:
            return ThinkingBlock(thinking=item.text)
        case OutputKind.CALL:
            name = tool_use_id(generation_id, item.number)
            return ToolUseBlock(id=name, name=item.name, input=item.arguments)
        case OutputKind.MESSAGE:
            return TextBlock(text=item.text, citations=citations_of(item, last) or None)


def citations_of(item: GrowingItem, last: Line) -> list[SourceCitation]:
    """Return the sources that a block of text cites; that it has none where others follow it, as in its stream."""
    labels = [source["label"] for source in last["sources"]]
    return [
        SourceCitation(
            cited_text=annotation.source.text,
            source=annotation.url_citation.url,
            title=annotation.url_citation.title,
            search_result_index=labels.index(annotation.source.label),
        )
        for annotation in (annotations_of(item.text, last) if item.is_open else ())
    ]


def tool_use_id(generation_id: uuid.UUID, number: int) -> str:
    """Return the id of a use of a tool: the same in each read of the answer."""
    return f"toolu_{generation_id.hex[:22]}{number:02x}"


def stop_reason(output: GrowingOutput, last: Line, stop: str | None) -> StopReason:
    if last["finish_reason"] == FinishReason.LENGTH:
        return "max_tokens"
    if stop is not None:
        return "stop_sequence"
    # There is no name for an answer that was stopped from elsewhere.
    return "tool_use" if output.has_calls else "end_turn"


def usage_of_line(last: Line) -> MessageUsage:
    usage = last["usage"]
    n_thought = usage.get("thought_tokens")
    return MessageUsage(
        input_tokens=usage["prompt_tokens"] - usage["cached_tokens"],
        cache_read_input_tokens=usage["cached_tokens"],
        output_tokens=usage["completion_tokens"],
        output_tokens_details=ThinkingDetails(thinking_tokens=n_thought) if n_thought else UNSET,
    )
