"""Purge requests for deleted conversations."""

import uuid
from collections.abc import Sequence

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType

from chat.models import Conversation
from inference.models import Generation
from inference.queue import purges


def passing_generations(conversation: Conversation) -> list[uuid.UUID]:
    """Return the temporary rows with tokens of the conversation: parts of long messages, turns that were not stored."""
    rows = Generation.objects.filter(owner=conversation.owner, ephemeral=True).values_list("pk", "params")
    tags_by_pk = {pk: [tag.partition("/")[0] for tag in params.get("cache_tags", ())] for pk, params in rows}
    return [pk for pk, tags in tags_by_pk.items() if conversation.pk.hex in tags]


def purge_conversation(conversation_id: uuid.UUID, *, generation_ids: Sequence[uuid.UUID]) -> None:
    """Request the removal of its KV states and token logs, and remove its title from the admin's log.

    To be called in the transaction that deletes the conversation.
    """
    entries = LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(Conversation), object_id=str(conversation_id)
    )
    entries.update(object_repr=str(conversation_id))
    purges.request_purge(reason="conversation", tags=[conversation_id.hex], generation_ids=generation_ids)
