"""What stands in the rows of the admin's lists; sums and names of a page of conversations are loaded at once.

As columns of the list's own query they would be computed for every row before the page is cut out of it.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import Avg, Count, F, FloatField, Q, Sum
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from chat.access.owners import owner_labels
from chat.admin.conversation_view import duration_text
from chat.models import Conversation, Message
from inference.models import ENDED

EXCERPT_CHARS = 80


@dataclass(frozen=True)
class ConversationSums:
    """What the messages of one conversation add up to; means are None before the first answer."""

    n_messages: int = 0
    n_unfinished: int = 0
    n_failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    mean_first_token_ms: float | None = None
    mean_total_ms: float | None = None

    @property
    def state(self) -> str:
        if self.n_unfinished:
            return "answering"
        return f"{self.n_failed} failed" if self.n_failed else ""

    def as_text(self) -> str:
        return (
            f"{self.n_messages} messages, {self.tokens_in:,} tokens in, {self.tokens_out:,} out; "
            f"first token after {duration_text(self.mean_first_token_ms)}, "
            f"answer after {duration_text(self.mean_total_ms)} on average"
        )


def conversation_sums(ids: list[uuid.UUID]) -> dict[uuid.UUID, ConversationSums]:
    """The sums of each conversation, with one query for all."""
    answer = "generation__"
    first_token_ms = KeyTextTransform("first_token", f"{answer}timings")
    rows = (
        Message.objects.filter(conversation__in=ids)
        .order_by()
        .values("conversation_id")
        .annotate(
            n_messages=Count("pk"),
            n_unfinished=Count("generation", filter=~Q(generation__status__in=ENDED)),
            n_failed=Count("generation", filter=Q(generation__status="failed")),
            tokens_in=Sum(f"{answer}n_prompt_tokens", default=0),
            tokens_out=Sum(f"{answer}n_completion_tokens", default=0),
            mean_first_token_ms=Avg(Cast(first_token_ms, FloatField())),
            mean_total=Avg(F(f"{answer}finished_at") - F(f"{answer}created_at")),
        )
    )
    return {row["conversation_id"]: _sums(dict(row)) for row in rows}


def _sums(row: dict[str, Any]) -> ConversationSums:
    mean_total = row.pop("mean_total")
    row.pop("conversation_id")
    return ConversationSums(**row, mean_total_ms=mean_total.total_seconds() * 1000 if mean_total else None)


class ConversationChangeList(ChangeList):
    """Puts ``listed_sums`` and ``listed_owner`` on every row of the page."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # Evaluated here, so that what is put on the rows is still there when they are rendered.
        rows: list[Any] = list(self.result_list)
        labels = owner_labels(row.owner for row in rows)
        sums = conversation_sums([row.pk for row in rows])
        for row in rows:
            row.listed_owner = labels[row.owner]
            row.listed_sums = sums.get(row.pk, ConversationSums())
        self.result_list = rows


def owner_of(conversation: Conversation) -> str:
    """The owner's name: as loaded for the whole page of a list, else asked for."""
    return getattr(conversation, "listed_owner", None) or owner_labels([conversation.owner])[conversation.owner]


def sums_of(conversation: Conversation) -> ConversationSums:
    """The sums that were loaded for the whole page of a list."""
    return getattr(conversation, "listed_sums", ConversationSums())


def heading_of(conversation: Conversation) -> str:
    return shortened(conversation.title) or f"(no title) {str(conversation.pk)[:8]}"


def conversation_link(conversation: Conversation) -> SafeString:
    address = reverse("admin:chat_conversation_change", args=[conversation.pk])
    return format_html('<a href="{}">{}</a>', address, heading_of(conversation))


def shortened(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: EXCERPT_CHARS * 4].split())
    return line if len(line) <= EXCERPT_CHARS else f"{line[:EXCERPT_CHARS]}\u2026"


def parameters_text(params: dict[str, Any]) -> str:
    """A generation's parameters as ``name value``, the sampling first."""
    flat = {**params.get("sampling", {}), **{name: value for name, value in params.items() if name != "sampling"}}
    return ", ".join(f"{name} {value}" for name, value in flat.items())
