"""Rendering of a generation's row as a response of OpenAI's API."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec import UNSET

from chat.schemas import answers
from chat.schemas.openai.rendering import annotations_of, timings_of
from chat.schemas.openai.tool_answers import call_id
from chat.schemas.requests import RESPONSE
from chat.schemas.responses.answers import (
    AnswerTextConfig,
    FunctionCallItem,
    IncompleteDetails,
    InputTokenDetails,
    ItemStatus,
    OutputItem,
    OutputMessage,
    OutputText,
    OutputTokenDetails,
    ReasoningConfig,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponseConversation,
    ResponseFailure,
    ResponseStatus,
    ResponseUsage,
    TextAnnotation,
)
from chat.schemas.responses.identifiers import (
    CALL_PREFIX,
    MESSAGE_PREFIX,
    REASONING_PREFIX,
    output_item_id,
    response_id,
)
from chat.schemas.responses.output import GrowingItem, GrowingOutput, OutputKind, OutputStep
from inference.models import WAITING, FinishReason, Generation, Status

Line = dict[str, Any]

INVALID_PROMPT = "context_overflow"
_PREFIXES = {
    OutputKind.THOUGHT: REASONING_PREFIX,
    OutputKind.MESSAGE: MESSAGE_PREFIX,
    OutputKind.CALL: CALL_PREFIX,
}


def started_response(generation: Generation, status: ResponseStatus) -> ResponseAnswer:
    """Return the response as it was in an earlier state, without output."""
    return _response(generation, status)


def current_response(generation: Generation, output: GrowingOutput) -> ResponseAnswer:
    """Return a response as it is; ``output`` is finished if it has ended."""
    if not generation.is_ended:
        return _response(generation, running_status(generation))
    return ended_response(generation, answers.final_line(generation), output)


def ended_response(generation: Generation, last: Line, output: GrowingOutput) -> ResponseAnswer:
    """Return a response with its output; ``last`` is the final line of its stream."""
    status = ended_status(generation)
    is_cut = status == "incomplete"
    reason = generation.error_code or "failed"
    failure = ResponseFailure(
        code="invalid_prompt" if reason == INVALID_PROMPT else "server_error",
        message=generation.error_message,
        reason=reason,
    )
    return _response(
        generation,
        status,
        completed_at=_seconds(generation.finished_at) if status == "completed" else None,
        error=failure if status == "failed" else None,
        incomplete_details=IncompleteDetails(reason="max_output_tokens") if is_cut else None,
        output=[output_item(item, generation, last) for item in output.items],
        usage=_usage(last),
        timings=timings_of(last),
        rag_error=last.get("rag_error", UNSET),
    )


def running_status(generation: Generation) -> ResponseStatus:
    # Of a response that somebody waits for, the queue is part of its progress.
    return "queued" if generation.status in WAITING and is_background(generation) else "in_progress"


def ended_status(generation: Generation) -> ResponseStatus:
    if generation.status == Status.FAILED or generation.error_code:
        return "failed"
    if generation.status == Status.INTERRUPTED:
        return "cancelled"
    return "incomplete" if generation.finish_reason == FinishReason.LENGTH else "completed"


def is_background(generation: Generation) -> bool:
    return bool(generation.details[RESPONSE]["background"])


def may_call(generation: Generation) -> bool:
    """Return whether the answer may call functions."""
    call = generation.details[RESPONSE]
    return bool(call.get("tools")) and call.get("tool_choice") != "none"


def finish(output: GrowingOutput, generation: Generation) -> Iterator[OutputStep]:
    """Finish the output of an ended response. A completed one has at least a message or a call."""
    yield from output.finish()
    if ended_status(generation) == "completed":
        yield from output.answer()


def output_item(item: GrowingItem, generation: Generation, last: Line | None = None) -> OutputItem:
    """Return an item as it is; ``last`` is the final line once the response has ended."""
    status: ItemStatus = "in_progress"
    if last is not None or not item.is_open:
        status = "incomplete" if item.is_open and ended_status(generation) != "completed" else "completed"
    is_empty = status == "in_progress"
    item_id = output_item_id(_PREFIXES[item.kind], generation.pk, item.number)
    match item.kind:
        case OutputKind.THOUGHT:
            return ReasoningItem(id=item_id, status=status, content=[] if is_empty else [ReasoningText(text=item.text)])
        case OutputKind.CALL:
            name = call_id(generation.pk, item.number)
            return FunctionCallItem(id=item_id, call_id=name, name=item.name, arguments=item.text, status=status)
        case OutputKind.MESSAGE:
            # What an item cites is known at the end: too late for one that ended before.
            annotations = text_annotations(item.text, last) if last and item.is_open else []
            part = OutputText(text=item.text, annotations=annotations, logprobs=item.logprobs)
            return OutputMessage(id=item_id, status=status, content=[] if is_empty else [part])


def text_annotations(text: str, last: Line) -> list[TextAnnotation]:
    return [
        TextAnnotation(
            start_index=annotation.url_citation.start_index,
            end_index=annotation.url_citation.end_index,
            title=annotation.url_citation.title,
            url=annotation.url_citation.url,
            source=annotation.source,
        )
        for annotation in annotations_of(text, last)
    ]


def _response(generation: Generation, status: ResponseStatus, **ended: Any) -> ResponseAnswer:  # noqa: ANN401
    call = generation.details[RESPONSE]
    message = getattr(generation, "message", None)
    unended: dict[str, Any] = {
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    return ResponseAnswer(
        id=response_id(generation.pk),
        created_at=_seconds(generation.created_at),
        status=status,
        background=call["background"],
        instructions=call.get("instructions"),
        max_output_tokens=call.get("max_output_tokens"),
        max_tool_calls=call.get("max_tool_calls"),
        model=call["model"],
        parallel_tool_calls=call.get("parallel_tool_calls", True),
        previous_response_id=call.get("previous_response_id"),
        prompt_cache_key=call.get("prompt_cache_key"),
        reasoning=ReasoningConfig(**call.get("reasoning", {})),
        safety_identifier=call.get("safety_identifier"),
        store=call["store"],
        temperature=call["temperature"],
        text=AnswerTextConfig(format=call.get("format", {"type": "text"}), verbosity=call.get("verbosity", "medium")),
        tool_choice=call.get("tool_choice", "auto"),
        tools=call.get("tools", []),
        top_logprobs=call.get("top_logprobs", 0),
        top_p=call["top_p"],
        truncation=call["truncation"],
        user=call.get("user"),
        metadata=call.get("metadata", {}),
        conversation=ResponseConversation(id=str(message.conversation_id)) if message else None,
        **unended | ended,
    )


def _usage(last: Line) -> ResponseUsage:
    usage = last["usage"]
    return ResponseUsage(
        input_tokens=usage["prompt_tokens"],
        input_tokens_details=InputTokenDetails(cached_tokens=usage["cached_tokens"]),
        output_tokens=usage["completion_tokens"],
        output_tokens_details=OutputTokenDetails(reasoning_tokens=usage.get("thought_tokens", 0)),
        total_tokens=usage["total_tokens"],
    )


def _seconds(moment: datetime | None) -> int:
    return int(moment.timestamp()) if moment else 0
