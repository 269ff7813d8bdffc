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
        """Only what belongs to this caller key."""
        return self.filter(owner=owner)

    def search(self, text: str) -> Self:
        """Whose title, messages or answers contain the text, ignoring case."""
        hit = Q(title__icontains=text) | Q(messages__content__icontains=text)
        return self.filter(hit | Q(messages__generation__text__icontains=text)).distinct()


class MessageQuerySet(models.QuerySet["Message"]):
    def in_order(self) -> Self:
        """Oldest first, with all that a prompt or a reader needs of each."""
        return self.select_related("generation", "retrieval").order_by("position")

    def unfinished(self) -> Self:
        """Answers still being made."""
        return self.filter(generation__isnull=False).exclude(generation__status__in=ENDED)

    def generation_ids(self) -> list[uuid.UUID]:
        return list(self.filter(generation__isnull=False).values_list("generation_id", flat=True))


class SummaryQuerySet(models.QuerySet["Summary"]):
    def made(self) -> Self:
        """The newest first: it is the one that counts."""
        return self.filter(state="made").order_by("-version")

    def making(self) -> Self:
        return self.filter(state="making")

    def generation_ids(self) -> list[uuid.UUID]:
        return list(self.filter(generation__isnull=False).values_list("generation_id", flat=True))
