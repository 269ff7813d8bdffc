"""The figures of the rows that were completed between two moments, by kind."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q, QuerySet

from chat.models import Message, Retrieval, Role
from chat.rag.retrieval.citations import citations_of
from chat.rag.sources import DOCUMENT
from chat.services.rollups.figures import Figures, add, observe
from inference.gpu.protocol.channels import OUR_SERVICE
from inference.models import FinishReason, Generation, HandOver, LeaseRecord, Status

GENERATIONS, CHAT, RETRIEVALS, GPU = "generations", "chat", "retrievals", "gpu"
KINDS = (GENERATIONS, CHAT, RETRIEVALS, GPU)
HOUR = timedelta(hours=1)
BUILT_IN = "builtin"
ROWS_AT_ONCE = 500

Moment = tuple[datetime, datetime]


def ended_generations(start: datetime, end: datetime) -> QuerySet[Generation]:
    # Both values of ``ephemeral``, so that the index over the two columns serves.
    return Generation.objects.filter(ephemeral__in=[True, False], finished_at__gte=start, finished_at__lt=end)


def generation_figures(start: datetime, end: datetime) -> Figures:
    columns = ("status", "error_code", "finish_reason", "n_prompt_tokens", "n_cached_tokens", "n_completion_tokens")
    rows = ended_generations(start, end).order_by().only(*columns, "timings", "devices")
    total: Figures = {}
    for generation in rows.iterator(chunk_size=ROWS_AT_ONCE):
        _add_generation(total, generation)
    return total


def _add_generation(total: Figures, generation: Generation) -> None:
    times = generation.timings
    decode_ms = float(times.get("decode") or 0.0)
    measured = {"queue_ms": times.get("queue"), "first_token_ms": times.get("first_token") or None}
    if decode_ms and generation.n_completion_tokens > 1:
        measured["tokens_per_s"] = generation.n_completion_tokens * 1000 / decode_ms
    histograms: Figures = {}
    for name, value in measured.items():
        if value is not None:
            observe(histograms.setdefault(name, {}), float(value))
    by_device: Figures = {}
    for part in generation.devices:
        add(by_device, {str(part.get("device", "")): part.get("tokens", 0)})
    summands = {
        "n": 1,
        "outcomes": {outcome_of(generation): 1},
        "tokens_in": generation.n_prompt_tokens,
        "tokens_cached": generation.n_cached_tokens,
        "tokens_out": generation.n_completion_tokens,
        "tokens_by_device": by_device,
        "queued_ms": float(times.get("queue") or 0.0),
    }
    add(total, summands | histograms)


def outcome_of(generation: Generation) -> str:
    if generation.status == Status.FAILED:
        return "failed"
    if generation.status == Status.INTERRUPTED:
        return "timed_out" if generation.error_code == "timeout" else "stopped"
    return "cut" if generation.finish_reason == FinishReason.LENGTH else "complete"


def chat_figures(start: datetime, end: datetime) -> Figures:
    """Count questions and the conversations that begin with them; the copies of a fork are neither."""
    is_new = Q(conversation__forked_at=None) | Q(position__gte=F("conversation__forked_at"))
    questions = Message.objects.filter(is_new, created_at__gte=start, created_at__lt=end, role=Role.USER)
    positions = list(questions.order_by().values_list("position", flat=True))
    return {"questions": len(positions), "conversations": positions.count(0)} if positions else {}


def retrieval_figures(start: datetime, end: datetime) -> Figures:
    """Sum up the retrievals of answers that have ended. Sources are named by their id, not by a text."""
    answers = Message.objects.filter(generation__in=ended_generations(start, end), retrieval__isnull=False)
    rows = answers.order_by().select_related("generation", "retrieval")
    rows = rows.defer("rendered", "generation__prompt", "generation__output", "generation__text_ends")
    total: Figures = {}
    for message in rows.iterator(chunk_size=ROWS_AT_ONCE):
        _add_retrieval(total, message, message.retrieval)
    return total


def _add_retrieval(total: Figures, message: Message, retrieval: Retrieval) -> None:
    stored = [source for source in retrieval.sources if source.get("kind") != DOCUMENT]
    cited_labels = citations_of(message) if stored else set()
    cited = [source for source in stored if source.get("label") in cited_labels]
    found_nothing = not retrieval.n_hits and not retrieval.error
    latency: Figures = {}
    observe(latency, retrieval.latency_ms)
    summands: Figures = {
        "n": 1,
        "failed": int(bool(retrieval.error)),
        "empty": int(found_nothing),
        "retrieved": retrieval.n_hits,
        "shown": len(stored),
        "cited": len(cited),
        "latency_ms": latency,
        "sources": {source_key(source): 1 for source in cited},
    }
    if found_nothing:
        summands["empty_ids"] = {str(retrieval.pk): 1}
    add(total, summands)


def source_key(source: dict[str, Any]) -> str:
    return f"{source.get('kind')}:{source.get('doc_id')}"


def hand_over_figures(rows: Iterable[HandOver]) -> Iterator[tuple[Moment, Figures]]:
    """Yield what each session adds, with the hour of it."""
    for row in rows:
        histograms: Figures = {}
        measured = {"waited_ms": row.waited_ms, "loaded_ms": row.loaded_ms, "yield_ms": row.yield_ms}
        for name, value in measured.items():
            if value is not None:
                observe(histograms.setdefault(name, {}), value)
        sums = {"sessions": 1, "moved_bytes": row.moved_bytes, "served": row.n_served, "withheld_secs": row.taken_secs}
        yield (row.started_at, row.started_at), sums | histograms
        granted_at = row.started_at + timedelta(milliseconds=row.waited_ms)
        # Those of the built-in coordinator are among its leases.
        if row.coordinator != BUILT_IN:
            yield from _held(OUR_SERVICE, granted_at, granted_at + timedelta(seconds=row.held_secs))


def lease_figures(start: datetime, end: datetime) -> Iterator[tuple[Moment, Figures]]:
    """Yield the seconds that each tenant held the GPU, by hour."""
    for lease in LeaseRecord.objects.filter(ended_at__gte=start, ended_at__lt=end):
        yield from _held(lease.requester, lease.acquired_at, lease.ended_at)


def _held(tenant: str, start: datetime, end: datetime) -> Iterator[tuple[Moment, Figures]]:
    while start < end:
        hour_end = start.replace(minute=0, second=0, microsecond=0) + HOUR
        part_end = min(hour_end, end)
        yield (start, part_end), {"held_secs": {tenant: (part_end - start).total_seconds()}}
        start = part_end
