"""A stored conversation as an operator reads it: one bubble per message, with what the machine knows about it.

Builds plain values for templates and holds no markup; loads a page of messages with a fixed number of queries.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet

from chat.local_time import moment_text
from chat.models import Conversation, Message, Retrieval, Role
from chat.rag.sources import parse_time
from chat.schemas.answers import cited_labels
from inference.models import Generation

MESSAGES_PER_PAGE = 200
SUMMARIES_SHOWN = 20
# Token ids and prompts are the bulk of a row and nobody reads them.
HEAVY_COLUMNS = ("rendered", "generation__prompt", "generation__output", "generation__details")

# In the order in which they pass; names are those of the wire format.
STAGES = (
    ("queue", "queue"),
    ("gpu_wait", "GPU wait"),
    ("load", "model load"),
    ("restore", "cache restore"),
    ("prefill", "prompt"),
    ("first_token", "first token"),
    ("decode", "answer"),
)


SCORE_PARTS = ("vector", "text", "recency")


@dataclass(frozen=True)
class Fact:
    """One named value below an answer."""

    label: str
    value: str


@dataclass(frozen=True)
class SourceLine:
    """A memory that an answer was given, every field ready to print; ``cited``: the answer names its label."""

    label: str
    kind: str
    title: str
    speaker: str
    time: str
    emotion: str
    score: str
    text: str
    cited: bool
    parts: str = ""  # of the score


@dataclass(frozen=True)
class RetrievalView:
    """``not_shown`` are hits that did not fit, or were given up for a document."""

    query: str
    filters: str
    understood: str
    n_hits: int
    latency: str
    error: str
    note: str
    sources: list[SourceLine]
    not_shown: list[SourceLine]

    @property
    def n_cited(self) -> int:
        return sum(source.cited for source in self.sources)


@dataclass(frozen=True)
class Bubble:
    """One message; ``status`` and what follows it are empty for a message that no model made."""

    message_id: str
    position: int
    role: str
    role_name: str
    text: str
    created_at: datetime
    status: str = ""
    is_ended: bool = True
    finish_reason: str = ""
    error: str = ""
    device: str = ""
    model_name: str = ""
    facts: tuple[Fact, ...] = ()
    retrieval: RetrievalView | None = None


def readable(messages: QuerySet[Message]) -> QuerySet[Message]:
    """Messages with what a bubble needs, in one query."""
    return messages.select_related("generation", "retrieval").defer(*HEAVY_COLUMNS)


def transcript_page(conversation: Conversation, number: str | None) -> Page[Message]:
    """A page of the conversation's messages, the last one unless another is asked for."""
    messages = readable(conversation.messages.order_by("position"))
    paginator = Paginator(messages, MESSAGES_PER_PAGE)
    return paginator.get_page(number or paginator.num_pages)


def summaries_context(conversation: Conversation) -> dict[str, object]:
    """The newest versions, and the one that stands in prompts however old it is."""
    every = conversation.summaries.order_by("-version")
    shown, in_use = list(every[:SUMMARIES_SHOWN]), conversation.summaries.made().first()
    if in_use and in_use not in shown:
        shown.append(in_use)
    return {"summaries": shown, "summary_in_use": in_use, "n_older_summaries": every.count() - len(shown)}


def bubbles(messages: Iterable[Message]) -> list[Bubble]:
    return [bubble(message) for message in messages]


def bubble(message: Message) -> Bubble:
    generation = message.generation
    plain = Bubble(
        message_id=str(message.pk),
        position=message.position,
        role=Role(message.role).label,
        role_name=message.role,
        text=message.text,
        created_at=message.created_at,
        retrieval=_retrieval_view(message),
    )
    return plain if generation is None else _answered(plain, generation)


def _answered(plain: Bubble, generation: Generation) -> Bubble:
    return replace(
        plain,
        status=generation.status,
        is_ended=generation.is_ended,
        finish_reason=generation.finish_reason,
        error=_error(generation),
        device=device_text(generation.devices),
        model_name=generation.model_name,
        facts=tuple(_facts(generation)),
    )


def _error(generation: Generation) -> str:
    return ": ".join(part for part in (generation.error_code, generation.error_message) if part)


def _facts(generation: Generation) -> Iterable[Fact]:
    usage = generation.usage
    tokens = f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out"
    if usage["cached_tokens"]:
        tokens += f" ({usage['cached_tokens']:,} from the cache)"
    yield Fact("tokens", tokens)
    for stage, label in STAGES:
        value = generation.timings.get(stage)
        # A stage that did not happen is written as 0; five of them would hide the two that count.
        if value:
            yield Fact(label, duration_text(value))
    total = total_ms(generation)
    if total is not None:
        yield Fact("total", duration_text(total))
    speed = tokens_per_second(generation)
    if speed is not None:
        yield Fact("speed", f"{speed:.1f} tokens/s")


def _retrieval_view(message: Message) -> RetrievalView | None:
    if not hasattr(message, "retrieval"):
        return None
    return retrieval_view(message.retrieval, message.text)


def retrieval_view(retrieval: Retrieval, answer: str) -> RetrievalView:
    cited = cited_labels(answer)
    parts = {str(hit.get("label") or ""): hit.get("scores") for hit in retrieval.hits}
    return RetrievalView(
        query=retrieval.query,
        filters=_named_values(retrieval.filters),
        understood=_named_values(retrieval.understood),
        n_hits=retrieval.n_hits,
        latency=duration_text(retrieval.latency_ms),
        error=retrieval.error,
        note=retrieval.note,
        sources=[source_line(source, cited, parts.get(str(source.get("label")))) for source in retrieval.sources],
        not_shown=[source_line(hit, set(), hit.get("scores")) for hit in retrieval.hits if not hit.get("label")],
    )


def _named_values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(values.items())  # PostgreSQL keeps no order
        if value not in (None, [], "")
    )


def _score_parts(scores: object) -> str:
    """``vector 0.62, text 0.31``; parts that had no say are left out."""
    known = scores if isinstance(scores, Mapping) else {}
    parts = ((name, known.get(name)) for name in SCORE_PARTS)
    return ", ".join(f"{name} {value:.2f}" for name, value in parts if isinstance(value, int | float))


def source_line(source: Mapping[str, Any], cited: set[str], scores: object = None) -> SourceLine:
    """What is shown of a source; ``source`` is as in the wire format, any field may be missing."""
    label = str(source.get("label") or "")
    score = source.get("score")
    return SourceLine(
        label=label,
        kind=str(source.get("kind") or "").replace("_", " "),
        title=str(source.get("title") or ""),
        speaker=str(source.get("speaker") or ""),
        time=source_time(source),
        emotion=str(source.get("emotion") or ""),
        score=f"{score:.2f}" if isinstance(score, int | float) else "",
        text=str(source.get("text") or ""),
        cited=label in cited,
        parts=_score_parts(scores),
    )


def source_time(source: Mapping[str, Any]) -> str:
    """The moment it was said: a date when one is known, else the place in the recording."""
    written = source.get("time")
    if isinstance(written, str) and written:
        moment = parse_time(written)
        return moment_text(moment) if moment else written
    start = source.get("start_time")
    if isinstance(start, int | float):
        return f"at {timedelta(seconds=int(start))}"
    return ""


def total_ms(generation: Generation) -> float | None:
    """From the moment the request came to the end of its answer."""
    if generation.finished_at is None:
        return None
    return (generation.finished_at - generation.created_at) / timedelta(milliseconds=1)


def tokens_per_second(generation: Generation) -> float | None:
    decode_ms = generation.timings.get("decode")
    if not decode_ms or generation.n_completion_tokens < 2:
        return None
    return float(generation.n_completion_tokens * 1000 / decode_ms)


def device_text(devices: Iterable[Mapping[str, Any]]) -> str:
    """``CPU``, or the way an answer took: ``CPU 12, GPU 140``."""
    parts = [(str(part.get("device", "")).upper(), part.get("tokens", 0)) for part in devices]
    if len(parts) == 1:
        return parts[0][0]
    return ", ".join(f"{name} {tokens}" for name, tokens in parts)


def duration_text(ms: float | None) -> str:
    """A duration in the unit a person would say it in."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds:02d} s"
