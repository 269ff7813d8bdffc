"""Purge requests for deleted and changed memories: the KV states of conversations whose answers were shown the memory.

The copy stored with an answer stays, and the next turn of its conversation computes it anew.
"""

import json
from collections.abc import Collection, Iterator
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import F, TextField
from django.db.models.functions import Cast

from chat.models import Conversation, Retrieval
from chat.rag.models import Note, Transcript
from chat.rag.sources import MEMORY, SEGMENT
from inference.queue import purges


def purge_note(note_id: int) -> None:
    """Purge what holds the note's tokens; to be called in the transaction that deletes it."""
    _forget_title(Note, note_id)
    _purge(set(_shown(MEMORY, {str(note_id)}, f'"doc_id": {json.dumps(str(note_id))}')))


def purge_transcript(transcript_id: int, segment_ids: Collection[int]) -> None:
    """Purge what holds the transcript's tokens; to be called in the transaction that deletes it."""
    _forget_title(Transcript, transcript_id)
    purge_lines(segment_ids)


def purge_lines(segment_ids: Collection[int]) -> None:
    """Purge what holds the tokens of these lines; to be called in the transaction that changes them."""
    _purge(set(_shown(SEGMENT, set(map(str, segment_ids)), f'"kind": {json.dumps(SEGMENT)}')))


def _shown(kind: str, doc_ids: Collection[str], part_of_json: str) -> Iterator[UUID]:
    """Yield the conversations with a prompt that contained one of these memories."""
    rows = Retrieval.objects.annotate(as_text=Cast("sources", TextField())).filter(as_text__contains=part_of_json)
    for conversation_id, sources in rows.values_list("message__conversation_id", "sources").iterator():
        if any(source.get("kind") == kind and source.get("doc_id") in doc_ids for source in sources):
            yield conversation_id


def _purge(conversation_ids: Collection[UUID]) -> None:
    conversations = Conversation.objects.filter(pk__in=conversation_ids)
    tags = [conversation.cache_tag for conversation in conversations.select_for_update()]
    # What they compute from now on is theirs under another tag.
    conversations.update(cache_epoch=F("cache_epoch") + 1)
    purges.request_purge(reason="memory", tags=tags)


def _forget_title(model: type[Note | Transcript], pk: int) -> None:
    entries = LogEntry.objects.filter(content_type=ContentType.objects.get_for_model(model), object_id=str(pk))
    entries.update(object_repr=str(pk))
