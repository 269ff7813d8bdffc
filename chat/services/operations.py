"""Operations across owners for the admin: cancel answers, rename, delete and export conversations.

They call the services that owners use, in the name of the owner.
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
    """Counts of answers that were cancelled, and of those that had ended before."""

    n_cancelled: int
    n_ended: int


def messages_in(conversations: QuerySet[Conversation]) -> MessageQuerySet:
    return Message.objects.filter(conversation__in=conversations.order_by().values("pk"))


def cancel_answers(messages: MessageQuerySet) -> CancelCounts:
    """Cancel the unfinished answers among the messages. Raises Unavailable if the store cannot be reached."""
    n_cancelled = n_ended = 0
    for generation_id, owner in list(messages.unfinished().values_list("generation_id", "generation__owner")):
        try:
            turns.cancel(caller=Caller(owner), generation_id=generation_id)
            n_cancelled += 1
        except Conflict:
            # It ended between the query and the cancel.
            n_ended += 1
    return CancelCounts(n_cancelled, n_ended)


def rename_conversation(conversation: Conversation, title: str) -> None:
    stored.update_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk, title=title)


def delete_conversations(conversations: Iterable[Conversation]) -> None:
    """Delete conversations with all their rows; unfinished answers are cancelled."""
    for conversation in conversations:
        stored.delete_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk)


def export_as_json(conversation: Conversation) -> dict[str, Any]:
    return stored.export_conversation(caller=Caller(conversation.owner), conversation_id=conversation.pk)


def export_as_markdown(conversation: Conversation) -> str:
    return stored.export_markdown(caller=Caller(conversation.owner), conversation_id=conversation.pk)
