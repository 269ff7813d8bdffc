"""Rendering of generations, messages and summaries into the wire format's objects."""

from dataclasses import asdict
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from chat.models import Message, Role, Summary, SummaryState
from chat.rag.retrieval.citations import attributions_of, cited_labels
from chat.rag.search.attribution import Attribution
from chat.schemas.answer_types import (
    AttributionAnswer,
    ChatAnswer,
    CompletionAnswer,
    DeviceRun,
    ErrorObject,
    HistoryNote,
    Json,
    MessageAnswer,
    OutcomeAnswer,
    SourceAnswer,
    SummaryAnswer,
    TurnIds,
    UsageAnswer,
    as_json,
)
from inference.models import FinishReason, Generation, Status


def answer(generation: Generation) -> Json:
    """Return the body of POST /chat for an ended generation."""
    parts = _fields(_outcome(generation)) | _fields(_ids(generation))
    body = ChatAnswer(
        response=generation.text,
        message=generation.text,
        text=generation.text,
        thought=generation.thought or UNSET,
        mode=generation.device or "cpu",  # no device before the first token
        tokens_generated=generation.n_completion_tokens,
        model=generation.model_name,
        **parts,
    )
    return as_json(body)


def final_line(generation: Generation) -> Json:
    """Return the fields of a stream's last line besides ``token`` and ``done``; with ``error`` if it failed."""
    line: Json = {"model": generation.model_name, **as_json(_ids(generation)), **as_json(_outcome(generation))}
    error = error_of(generation)
    return line | {"error": as_json(error)} if error else line


def message_body(message: Message) -> Json:
    """Return one entry of /api/conversations/{id}/messages/. Needs generation and retrieval loaded (``in_order``)."""
    body = MessageAnswer(
        id=str(message.pk),
        role=Role(message.role),
        content=message.text,
        thought=message.thought or UNSET,
        status=Status(message.status),
        created_at=message.created_at.isoformat(),
    )
    generation = message.generation
    if generation is None:
        # The copy of an answer in a fork has the sources of the original.
        sources, rag_error = _shown(None, message)
        copied = attributions_of(message, None)
        return as_json(
            msgspec.structs.replace(
                body,
                sources=_with_citations(sources, message.text, copied),
                rag_error=rag_error or UNSET,
                annotations=_annotations(sources, copied),
            )
        )
    # The message is at hand: by its generation it would be loaded again.
    outcome = _outcome(generation, message)
    return as_json(
        msgspec.structs.replace(
            body,
            finish_reason=outcome.finish_reason,
            usage=outcome.usage,
            timings=outcome.timings,
            device=outcome.device,
            devices=outcome.devices,
            sources=outcome.sources,
            generation_id=str(generation.pk),
            model=generation.model_name,
            rag_error=outcome.rag_error,
            annotations=outcome.annotations,
            error=error_of(generation) or UNSET,
        )
    )


def summary_body(summary: Summary) -> Json:
    """Return one entry of /api/conversations/{id}/summaries/."""
    return as_json(
        SummaryAnswer(
            version=summary.version,
            state=SummaryState(summary.state),
            covers_until=summary.covers_until,
            text=summary.text,
            tokens=summary.n_tokens,
            generation_id=str(summary.generation_id) if summary.generation_id else None,
            error=summary.error or None,
            note=summary.note or None,
            created_at=summary.created_at.isoformat(),
            made_at=summary.made_at.isoformat() if summary.made_at else None,
        )
    )


def completion(generation: Generation) -> Json:
    """Return the body of POST /generate."""
    return as_json(
        CompletionAnswer(
            text=generation.text,
            tokens_generated=generation.n_completion_tokens,
            mode=generation.device or "cpu",
            usage=_usage(generation),
            model=generation.model_name,
            generation_id=str(generation.pk),
            finish_reason=finish_reason(generation),
            timings=generation.timings,
        )
    )


def error_of(generation: Generation) -> ErrorObject | None:
    """Return why it failed, or why something other than its client stopped it early."""
    # A code without a failure: a deadline has stopped it, for example.
    if generation.status == Status.FAILED or generation.error_code:
        return ErrorObject(code=generation.error_code or "failed", message=generation.error_message)
    return None


def finish_reason(generation: Generation) -> FinishReason | None:
    # Stopped while it waited: no worker was there to give a reason.
    if not generation.finish_reason and generation.status == Status.INTERRUPTED:
        return FinishReason.CANCELLED
    return FinishReason(generation.finish_reason) if generation.finish_reason else None


def _ids(generation: Generation) -> TurnIds:
    message = _message(generation)
    return TurnIds(
        conversation_id=str(message.conversation_id) if message else None,
        message_id=str(message.pk) if message else None,
        generation_id=str(generation.pk),
    )


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(struct)


def _outcome(generation: Generation, message: Message | None = None) -> OutcomeAnswer:
    message = message or _message(generation)
    sources, rag_error = _shown(generation, message)
    attributed = attributions_of(message, generation)
    timings = generation.timings
    return OutcomeAnswer(
        usage=_usage(generation),
        rag_context_used=len(sources),
        gpu_wait_time=round(timings.get("gpu_wait", 0.0) / 1000, 4),
        inference_time=round((timings.get("prefill", 0.0) + timings.get("decode", 0.0)) / 1000, 4),
        finish_reason=finish_reason(generation),
        sources=_with_citations(sources, generation.text, attributed),
        timings=timings,
        device=generation.device or None,
        devices=msgspec.convert(generation.devices, list[DeviceRun]),
        rag_error=rag_error or UNSET,
        annotations=_annotations(sources, attributed),
    )


def _usage(generation: Generation) -> UsageAnswer:
    note = generation.details.get("history")
    history = msgspec.convert(note, HistoryNote) if note else UNSET
    # Missing without a thought: most models have none.
    n_thought = generation.n_thought_tokens if generation.thought else UNSET
    return UsageAnswer(**generation.usage, thought_tokens=n_thought, history=history)


def _with_citations(sources: list[dict[str, Any]], text: str, attributed: list[Attribution]) -> list[SourceAnswer]:
    cited = cited_labels(text).union(attribution.label for attribution in attributed) if sources else set()
    return [msgspec.convert(source | {"cited": source.get("label") in cited}, SourceAnswer) for source in sources]


def _annotations(sources: list[dict[str, Any]], attributed: list[Attribution]) -> list[AttributionAnswer] | UnsetType:
    return [AttributionAnswer(**asdict(attribution)) for attribution in attributed] if sources else UNSET


def _shown(generation: Generation | None, message: Message | None) -> tuple[list[dict[str, Any]], str]:
    """Return the sources of an answer and the error of their search: kept with its message, else in its details."""
    if message is None:
        details = generation.details if generation else {}
        return details.get("sources", []), details.get("rag_error", "")
    retrieval = getattr(message, "retrieval", None)
    return (retrieval.sources, retrieval.error) if retrieval else ([], "")


def _message(generation: Generation) -> Message | None:
    return getattr(generation, "message", None)
