"""Deletion by age: conversations RETENTION_DAYS after they were last continued, unless they are kept, and API keys as
many days after their end."""

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from chat.access import api_keys
from chat.access.callers import Caller
from chat.models import Conversation
from chat.services.conversations import delete_conversation

log = logging.getLogger(__name__)

INTERVAL_SECS = 600.0
BATCH_ROWS = 200
# Also without RETENTION_DAYS, which may shorten it: what a key that has ended was for helps for a while only.
ENDED_KEY_DAYS = 90


def delete_outdated() -> int:
    """Delete a batch of outdated conversations with all that belongs to them; return how many."""
    if not settings.RETENTION_DAYS:
        return 0
    before = timezone.now() - timedelta(days=settings.RETENTION_DAYS)
    outdated = Conversation.objects.outdated(before)
    n_deleted = 0
    for pk in list(outdated.order_by("updated_at").values_list("pk", flat=True)[:BATCH_ROWS]):
        # Locked and looked at again: it may have been continued, or marked to be kept, since the query.
        with transaction.atomic():
            conversation = outdated.select_for_update().filter(pk=pk).first()
            if conversation is not None:
                delete_conversation(caller=Caller(conversation.owner), conversation_id=pk)
                n_deleted += 1
    if n_deleted:
        log.info("conversations deleted for their age n_conversations=%d days=%d", n_deleted, settings.RETENTION_DAYS)
    return n_deleted


def delete_ended_keys() -> int:
    days = min(settings.RETENTION_DAYS or ENDED_KEY_DAYS, ENDED_KEY_DAYS)
    n_deleted = api_keys.delete_ended_keys(before=timezone.now() - timedelta(days=days))
    if n_deleted:
        log.info("ended api keys deleted n_keys=%d days=%d", n_deleted, days)
    return n_deleted


def delete_all_outdated() -> None:
    """Delete ended keys, then batches of conversations until none is left."""
    delete_ended_keys()
    while delete_outdated() == BATCH_ROWS:
        pass
