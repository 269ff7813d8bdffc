"""A stored conversation as plain values for templates: one bubble per message, with figures of its generation.

A page of messages takes a fixed number of queries.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import F, QuerySet

from chat.admin.common.formatting import device_text, duration_text, tokens_per_second, total_ms
from chat.admin.common.retrieval_view import RetrievalView, retrieval_view
from chat.admin.service.running import text_so_far
from chat.admin.waterfall import Stage, waterfall
from chat.models import Conversation, Message, Role
from inference.models import Generation

MESSAGES_PER_PAGE = 200
SUMMARIES_SHOWN = 20
# Token ids and prompts are the bulk of a row, and not shown.
HEAVY_COLUMNS = (
    "rendered",
    "generation__prompt",
    "generation__output",
    "generation__thought_ends",
    "generation__logprobs",
    "generation__details",
)


@dataclass(frozen=True)
class Fact:
    """A labelled value below an answer."""

    label: str
    value: str


@dataclass(frozen=True)
class Bubble:
    """A message; ``status`` and the fields below are empty for a message without a generation."""

    message_id: str
    position: int
    role: str
    role_name: str
    text: str
    created_at: datetime
    thought: str = ""
    status: str = ""
    is_ended: bool = True
    finish_reason: str = ""
    error: str = ""
    device: str = ""
    model_name: str = ""
    facts: tuple[Fact, ...] = ()
    stages: tuple[Stage, ...] = ()
    retrieval: RetrievalView | None = None


def with_bubble_columns(messages: QuerySet[Message]) -> QuerySet[Message]:
    """Load all that a bubble needs in one query."""
    history = F("generation__details__history")
    return messages.select_related("generation", "retrieval").defer(*HEAVY_COLUMNS).annotate(history_note=history)


def transcript_page(conversation: Conversation, number: str | None) -> Page[Message]:
    """Return a page of the conversation's messages, by default the last."""
    messages = with_bubble_columns(conversation.messages.order_by("position"))
    # The last page first: operators look at what has just happened.
    paginator = Paginator(messages, MESSAGES_PER_PAGE)
    return paginator.get_page(number or paginator.num_pages)


def summaries_context(conversation: Conversation) -> dict[str, object]:
    """Return the newest summaries, and the one in use however old it is."""
    versions = conversation.summaries.order_by("-version")
    listed, in_use = list(versions[:SUMMARIES_SHOWN]), conversation.summaries.made().first()
    if in_use and in_use not in listed:
        listed.append(in_use)
    return {"summaries": listed, "summary_in_use": in_use, "n_older_summaries": versions.count() - len(listed)}


def bubbles(messages: Iterable[Message]) -> list[Bubble]:
    return [bubble(message) for message in messages]


def bubble(message: Message) -> Bubble:
    generation = message.generation
    basic = Bubble(
        message_id=str(message.pk),
        position=message.position,
        role=Role(message.role).label,
        role_name=message.role,
        text=message.text,
        thought=message.thought,
        created_at=message.created_at,
        retrieval=retrieval_view(message.retrieval) if hasattr(message, "retrieval") else None,
    )
    if generation is None:
        return basic
    search_ms = basic.retrieval.latency_ms if basic.retrieval else None
    if not generation.is_ended:
        so_far = text_so_far(generation)
        basic = replace(basic, text=so_far.text, thought=so_far.thought)
    return replace(
        basic,
        status=generation.status,
        is_ended=generation.is_ended,
        finish_reason=generation.finish_reason,
        error=": ".join(part for part in (generation.error_code, generation.error_message) if part),
        device=device_text(generation.devices),
        model_name=generation.model_name,
        facts=(*_facts(generation), *_history_facts(getattr(message, "history_note", None) or {})),
        stages=tuple(waterfall(generation, search_ms)),
    )


def _facts(generation: Generation) -> Iterable[Fact]:
    usage = generation.usage
    tokens = f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out"
    if usage["cached_tokens"]:
        tokens += f" ({usage['cached_tokens']:,} from the cache)"
    yield Fact("tokens", tokens)
    if first_token_ms := generation.timings.get("first_token"):
        yield Fact("first token after", duration_text(first_token_ms))
    total = total_ms(generation)
    if total is not None:
        yield Fact("total", duration_text(total))
    speed = tokens_per_second(generation)
    if speed is not None:
        yield Fact("speed", f"{speed:.1f} tokens/s")


def _history_facts(note: Mapping[str, Any]) -> Iterable[Fact]:
    """Say which messages the prompt did not hold, and which of them it had beside the question and why."""
    if note.get("messages_summarized"):
        yield Fact("summarized", f"{note['messages_summarized']} messages by version {note.get('summary_version')}")
    if note.get("messages_left_out"):
        yield Fact("left out", f"{note['messages_left_out']} messages")
    if problem := note.get("summary"):
        yield Fact("newer summary", problem)
    if recalled := note.get("recalled"):
        yield Fact("recalled", ", ".join(map(_recalled_text, recalled)))
    if problem := note.get("recall_problem"):
        yield Fact("recall", problem)


def _recalled_text(passage: Mapping[str, Any]) -> str:
    parts = {"similar": passage["similarity"], "words": passage["words"]}
    reasons = [f"{name} {value:.2f}" for name, value in parts.items() if value is not None]
    return f"#{passage['position']} {passage['role']} {passage['score']:.2f} ({', '.join(reasons)})"
