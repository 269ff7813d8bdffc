"""What an operator may do across owners: stop answers that are being made, rename, delete and export conversations.

Everything goes through the services that the owners themselves use, in the owners' names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from chat.access.callers import Caller
from chat.errors import Conflict
from chat.models import Conversation, Message
from chat.querysets import MessageQuerySet
from chat.services import conversations as stored
from chat.services import turns


@dataclass(frozen=True)
class CancelCounts:
    """How many answers were told to stop, and how many had ended before they could be told."""

    n_told: int
    n_ended: int


def messages_in(conversations: QuerySet[Conversation]) -> MessageQuerySet:
    return Message.objects.filter(conversation__in=conversations.order_by().values("pk"))


def cancel_answers(messages: MessageQuerySet) -> CancelCounts:
    """Stop every answer among the messages that is still being made. Raises Unavailable if the store is away."""
    n_told = n_ended = 0
    for generation_id, owner in list(messages.unfinished().values_list("generation_id", "generation__owner")):
        try:
            turns.cancel(caller=Caller(owner), generation_id=generation_id)
            n_told += 1
        except Conflict:
            # It ended between the query and now: what was wanted has happened.
            n_ended += 1
    return CancelCounts(n_told, n_ended)


def rename_conversation(conversation: Conversation, title: str) -> None:
    stored.update_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk, title=title)


def delete_conversations(conversations: Iterable[Conversation]) -> None:
    """Delete conversations with all that belongs to them, answers that are being made included."""
    for conversation in conversations:
        stored.delete_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk)


def export_as_json(conversation: Conversation) -> dict[str, Any]:
    return stored.export_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk)


def export_as_markdown(conversation: Conversation) -> str:
    return stored.export_markdown(caller=Caller(conversation.owner), conversation_id=conversation.pk)
