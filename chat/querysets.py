"""Named queries over conversations, messages and summaries."""

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Self, cast

from django.db import models
from django.db.models import Exists, OuterRef, Q

from chat.text_index.candidates import candidates
from inference.models import ENDED
from inference.text_forms import folded

if TYPE_CHECKING:
    from chat.models import ApiKey, Conversation, Message, Summary  # noqa: F401  (for the type arguments below)


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def of(self, owner: str) -> Self:
        """Filter by the key of a caller."""
        return self.filter(owner=owner)

    def lock_unchanged(self, conversation: "Conversation") -> "Conversation | None":
        """Lock the row of a conversation that was read before; None if since then it was deleted, or a text that its
        prompts hold."""
        return self.select_for_update().filter(pk=conversation.pk, cache_epoch=conversation.cache_epoch).first()

    def outdated(self, before: datetime) -> Self:
        """Filter those that nobody has continued since, and that are not to be kept."""
        return self.filter(updated_at__lt=before, keep=False)

    def latest_versions(self) -> Self:
        """Filter the most recently updated conversation of each family, and those that have none."""
        is_later = Q(updated_at__gt=OuterRef("updated_at"))
        is_later |= Q(updated_at=OuterRef("updated_at"), pk__gt=OuterRef("pk"))
        newer = self.model._default_manager.filter(is_later, family=OuterRef("family"), owner=OuterRef("owner"))
        return self.filter(~Exists(newer))

    def archived(self, is_archived: bool) -> Self:
        return self.filter(archived=is_archived)

    def search(self, text: str) -> Self:
        """Filter by a text in title, messages or answers; case, width and composition of characters do not matter."""
        needle = folded(text)
        texts = Q(content_folded__contains=needle) | Q(generation__text_folded__contains=needle)
        messages = cast("type[Message]", self.model._meta.get_field("messages").related_model).objects
        # Exists ends at a conversation's first hit, where a join would read them all and sort out duplicates.
        in_messages = Exists(messages.filter(texts, conversation=OuterRef("pk")))
        rows = self.filter(Q(title_folded__contains=needle) | in_messages)
        narrow = candidates(needle)
        return rows.filter(pk__in=narrow.conversations) if narrow else rows


class MessageQuerySet(models.QuerySet["Message"]):
    def search(self, text: str) -> Self:
        """Filter by a text in the message, in its error, or in its conversation's title, as that of conversations."""
        needle = folded(text)
        rows = self.filter(
            Q(content_folded__contains=needle)
            | Q(generation__text_folded__contains=needle)
            | Q(generation__error_message__icontains=needle)
            | Q(conversation__title_folded__contains=needle)
        )
        narrow = candidates(needle)
        if narrow is None:
            return rows
        return rows.filter(Q(pk__in=narrow.messages) | Q(conversation__in=narrow.titled))

    def in_order(self) -> Self:
        """Order by position, with the related rows that prompts and pages need."""
        return self.select_related("generation", "retrieval").defer("generation__logprobs").order_by("position")

    def at_digest(self, history_digest: str) -> Self:
        """Filter by the cumulative digest, the newest first."""
        return self.filter(history_digest=history_digest).order_by("-created_at")

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


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def ended(self, at: datetime) -> Self:
        """Filter those that were revoked or had expired at that time."""
        return self.filter(Q(revoked_at__lte=at) | Q(expires_at__lte=at))
