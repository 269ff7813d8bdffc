"""Named queries over conversations, messages and summaries."""

import uuid
from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import Q

from inference.models import ENDED

if TYPE_CHECKING:
    from chat.models import Conversation, Message, Summary  # noqa: F401  (for the type arguments below)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def of(self, owner: str) -> Self:
        """Filter by the key of a caller."""
        return self.filter(owner=owner)

    def search(self, text: str) -> Self:
        """Filter by a text in title, messages or answers, ignoring case."""
        hit = Q(title__icontains=text) | Q(messages__content__icontains=text)
        return self.filter(hit | Q(messages__generation__text__icontains=text)).distinct()


class MessageQuerySet(models.QuerySet["Message"]):
    def in_order(self) -> Self:
        """Order by position, with the related rows that prompts and pages need."""
        return self.select_related("generation", "retrieval").order_by("position")

    def unfinished(self) -> Self:
        """Filter the answers whose generation has not ended."""
        return self.filter(generation__isnull=False).exclude(generation__status__in=ENDED)

    def generation_ids(self) -> list[uuid.UUID]:
        return list(self.filter(generation__isnull=False).values_list("generation_id", flat=True))


class SummaryQuerySet(models.QuerySet["Summary"]):
    def made(self) -> Self:
        """Filter completed versions, the newest first, which is the one in use."""
        return self.filter(state="made").order_by("-version")

    def making(self) -> Self:
        return self.filter(state="making")

    def generation_ids(self) -> list[uuid.UUID]:
        return list(self.filter(generation__isnull=False).values_list("generation_id", flat=True))
