"""Deletion of many conversations in the background: as a request it would take minutes, and end with its connection."""

import logging
import uuid
from collections.abc import Sequence

from django.contrib.auth import get_user_model
from django.utils import timezone

from chat.access.callers import Caller
from chat.errors import ChatError
from chat.models import BulkDeletion, Conversation
from chat.services.accounts.users import delete_user
from chat.services.conversations import delete_conversation
from chat.transactions import one_transaction

log = logging.getLogger(__name__)

INTERVAL_SECS = 2.0
MOST_AT_ONCE = 20  # more than that are deleted in the background


def request_deletion(
    *, conversation_ids: Sequence[uuid.UUID], requested_by: str, user_id: int | None = None
) -> BulkDeletion:
    """Store what is to be deleted; with ``user_id`` that user after the conversations, with all other rows."""
    row = BulkDeletion.objects.create(
        requested_by=requested_by,
        conversation_ids=[pk.hex for pk in conversation_ids],
        user_id=user_id,
        n_total=len(conversation_ids),
    )
    log.info("deletion requested deletion=%s n_conversations=%d user=%s", row.pk, row.n_total, user_id)
    return row


def delete_all_requested() -> None:
    """Delete until nothing is left to be deleted."""
    try:
        while delete_next():
            pass
    except ChatError as error:
        log.warning("deletion goes on later error=%s", error.message)


def delete_next() -> bool:
    """Delete some conversations of the oldest unfinished deletion, or its user; False when there is none."""
    row = BulkDeletion.objects.filter(ended_at=None).order_by("pk").first()
    if row is None:
        return False
    batch = row.conversation_ids[row.n_done : row.n_done + MOST_AT_ONCE]
    for n_done, pk in enumerate(batch, start=row.n_done):
        _delete_one(row.pk, n_done, uuid.UUID(pk))
    if row.n_done + len(batch) < row.n_total:
        return True
    if row.user_id is not None:
        for user in get_user_model()._default_manager.filter(pk=row.user_id):
            delete_user(user)  # with conversations that were begun meanwhile
    BulkDeletion.objects.filter(pk=row.pk).update(ended_at=timezone.now(), conversation_ids=[])
    log.info("deletion ended deletion=%s n_conversations=%d", row.pk, row.n_total)
    return True


@one_transaction
def _delete_one(deletion_id: int, n_done: int, conversation_id: uuid.UUID) -> None:
    """Delete the conversation at this place of the list, unless another process has done so."""
    is_next = BulkDeletion.objects.filter(pk=deletion_id, n_done=n_done, ended_at=None)
    if not is_next.update(n_done=n_done + 1):
        return
    conversation = Conversation.objects.filter(pk=conversation_id).first()
    if conversation is not None:  # its owner may have deleted it
        delete_conversation(caller=Caller(conversation.owner), conversation_id=conversation_id)
