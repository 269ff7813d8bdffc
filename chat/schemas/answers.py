"""What a client gets to see of a generation or message: bodies of the wire format."""

from typing import Any

from chat.models import Message, Summary
from inference.engine.text.citation_filter import citation_labels
from inference.models import FinishReason, Generation, Status


def answer(generation: Generation) -> dict[str, Any]:
    """The body of POST /chat for an ended generation."""
    return {
        "response": generation.text,
        "model": generation.model_name,
        **_ids(generation),
        **_outcome(generation),
    }


def final_line(generation: Generation) -> dict[str, Any]:
    """What the last line of a stream has besides ``token`` and ``done``; with ``error`` if it failed."""
    line = {"model": generation.model_name, **_ids(generation), **_outcome(generation)}
    error = error_of(generation)
    return line | {"error": error} if error else line


def message_body(message: Message) -> dict[str, Any]:
    """One entry of /api/conversations/{id}/messages/. Wants generation and retrieval loaded (``in_order``)."""
    body: dict[str, Any] = {
        "id": str(message.pk),
        "role": message.role,
        "content": message.text,
        "status": message.status,
        "created_at": message.created_at.isoformat(),
        "finish_reason": None,
        "usage": None,
        "timings": None,
        "device": None,
        "sources": [],
        "generation_id": None,
    }
    if message.generation is None:
        return body
    outcome = _outcome(message.generation, message)
    shown = {name: outcome[name] for name in ("finish_reason", "usage", "timings", "device", "devices", "sources")}
    body |= shown | {"generation_id": str(message.generation.pk), "model": message.generation.model_name}
    for name, value in (("rag_error", outcome.get("rag_error")), ("error", error_of(message.generation))):
        if value:
            body[name] = value
    return body


def summary_body(summary: Summary) -> dict[str, Any]:
    """One entry of /api/conversations/{id}/summaries/; ``covers_until`` is the position of the last message covered."""
    return {
        "version": summary.version,
        "state": summary.state,
        "covers_until": summary.covers_until,
        "text": summary.text,
        "tokens": summary.n_tokens,
        "generation_id": str(summary.generation_id) if summary.generation_id else None,
        "error": summary.error or None,
        "created_at": summary.created_at.isoformat(),
        "made_at": summary.made_at.isoformat() if summary.made_at else None,
    }


def completion(generation: Generation) -> dict[str, Any]:
    """The body of POST /generate."""
    return {
        "text": generation.text,
        "tokens_generated": generation.n_completion_tokens,
        "mode": generation.device or "cpu",
        "usage": generation.usage,
        "model": generation.model_name,
        "generation_id": str(generation.pk),
        "finish_reason": finish_reason(generation),
        "timings": generation.timings,
    }


def error_of(generation: Generation) -> dict[str, str] | None:
    """Why it failed, or why it was stopped early by other than its client."""
    if generation.status == Status.FAILED or generation.error_code:
        return {"code": generation.error_code or "failed", "message": generation.error_message}
    return None


def finish_reason(generation: Generation) -> str | None:
    # Stopped while it waited: no worker was there to give a reason.
    if not generation.finish_reason and generation.status == Status.INTERRUPTED:
        return FinishReason.CANCELLED.value
    return generation.finish_reason or None


def cited_labels(text: str) -> set[str]:
    """Labels that the text names outside of code: ``[1]``, ``[1, 3]``, ``[2-4]``."""
    return {str(number) for number in citation_labels(text)}


def _ids(generation: Generation) -> dict[str, str | None]:
    message = _message(generation)
    return {
        "conversation_id": str(message.conversation_id) if message else None,
        "message_id": str(message.pk) if message else None,
        "generation_id": str(generation.pk),
    }


def _outcome(generation: Generation, message: Message | None = None) -> dict[str, Any]:
    sources, rag_error = _shown(generation, message or _message(generation))
    cited = cited_labels(generation.text)
    usage: dict[str, Any] = dict(generation.usage)
    if generation.details.get("history"):
        usage["history"] = generation.details["history"]
    timings = generation.timings
    outcome: dict[str, Any] = {
        "usage": usage,
        "rag_context_used": len(sources),
        "gpu_wait_time": round(timings.get("gpu_wait", 0.0) / 1000, 4),
        "inference_time": round((timings.get("prefill", 0.0) + timings.get("decode", 0.0)) / 1000, 4),
        "finish_reason": finish_reason(generation),
        "sources": [source | {"cited": source.get("label") in cited} for source in sources],
        "timings": timings,
        "device": generation.device or None,
        "devices": generation.devices,
    }
    return outcome | {"rag_error": rag_error} if rag_error else outcome


def _shown(generation: Generation, message: Message | None) -> tuple[list[dict[str, Any]], str]:
    """The sources an answer was given and what went wrong with them: kept with its message, else in its details."""
    if message is None:
        return generation.details.get("sources", []), generation.details.get("rag_error", "")
    retrieval = getattr(message, "retrieval", None)
    return (retrieval.sources, retrieval.error) if retrieval else ([], "")


def _message(generation: Generation) -> Message | None:
    return getattr(generation, "message", None)
