"""Cells of the admin's lists; sums and owner names are loaded once for a page of conversations.

As annotations of the list's query they would be computed for every row before pagination.
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
from chat.admin.common.formatting import duration_text, shortened
from chat.models import Conversation, Message
from inference.models import ENDED


@dataclass(frozen=True)
class ConversationSums:
    """Sums over the messages of one conversation; means are None before the first answer."""

    n_messages: int = 0
    n_unfinished: int = 0
    n_failed: int = 0
    n_timed_out: int = 0
    n_stopped: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    mean_first_token_ms: float | None = None
    mean_total_ms: float | None = None

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "ConversationSums":
        """Build the sums from a row of ``conversation_sums``, whose mean time is an interval."""
        mean_total = row.pop("mean_total")
        return cls(**row, mean_total_ms=mean_total.total_seconds() * 1000 if mean_total else None)

    @property
    def state(self) -> str:
        if self.n_unfinished:
            return "answering"
        counts = {"failed": self.n_failed, "timed out": self.n_timed_out, "stopped": self.n_stopped}
        return ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)

    def as_text(self) -> str:
        return (
            f"{self.n_messages} messages, {self.tokens_in:,} tokens in, {self.tokens_out:,} out; "
            f"first token after {duration_text(self.mean_first_token_ms)}, "
            f"answer after {duration_text(self.mean_total_ms)} on average"
        )


def conversation_sums(ids: list[uuid.UUID]) -> dict[uuid.UUID, ConversationSums]:
    """Return the sums of each conversation, with one query."""
    answer = "generation__"
    is_interrupted, is_late = Q(generation__status="interrupted"), Q(generation__error_code="timeout")
    has_begun = Q(generation__n_completion_tokens__gt=0)
    first_token_ms = KeyTextTransform("first_token", f"{answer}timings")
    rows = (
        Message.objects.filter(conversation__in=ids)
        .order_by()
        .values("conversation_id")
        .annotate(
            n_messages=Count("pk"),
            n_unfinished=Count("generation", filter=~Q(generation__status__in=ENDED)),
            n_failed=Count("generation", filter=Q(generation__status="failed")),
            n_timed_out=Count("generation", filter=is_interrupted & is_late),
            n_stopped=Count("generation", filter=is_interrupted & ~is_late),
            tokens_in=Sum(f"{answer}n_prompt_tokens", default=0),
            tokens_out=Sum(f"{answer}n_completion_tokens", default=0),
            # Without those that ended before their first token, where it is 0.
            mean_first_token_ms=Avg(Cast(first_token_ms, FloatField()), filter=has_begun),
            mean_total=Avg(F(f"{answer}finished_at") - F(f"{answer}created_at")),
        )
    )
    return {row.pop("conversation_id"): ConversationSums.of_row(row) for row in map(dict, rows)}


class ConversationChangeList(ChangeList):
    """Sets ``listed_sums`` and ``listed_owner`` on every row of the page."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # Evaluated here, so that the attributes are still on the rows when they are rendered.
        rows: list[Any] = list(self.result_list)
        labels = owner_labels(row.owner for row in rows)
        sums = conversation_sums([row.pk for row in rows])
        for row in rows:
            row.listed_owner = labels[row.owner]
            row.listed_sums = sums.get(row.pk, ConversationSums())
        self.result_list = rows


def owner_of(conversation: Conversation) -> str:
    """Return the owner's name, from the list page when it was loaded there."""
    return getattr(conversation, "listed_owner", None) or owner_labels([conversation.owner])[conversation.owner]


def sums_of(conversation: Conversation) -> ConversationSums:
    """Return the sums loaded for the list page."""
    return getattr(conversation, "listed_sums", ConversationSums())


def heading_of(conversation: Conversation) -> str:
    return shortened(conversation.title) or f"(no title) {str(conversation.pk)[:8]}"


def conversation_link(conversation: Conversation) -> SafeString:
    address = reverse("admin:chat_conversation_change", args=[conversation.pk])
    return format_html('<a href="{}">{}</a>', address, heading_of(conversation))
