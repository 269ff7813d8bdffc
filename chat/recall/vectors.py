"""Vectors of messages' passages, computed in every web process when answers leave room.

Passages without a vector are the work list: a killed process loses nothing, and until then their words find them.
"""

import logging
import os
import threading

from django.db import DatabaseError, connection

from chat.models import Message, MessagePassage, Role
from chat.rag.vectors import embedding
from chat.rag.vectors.backfill import BATCH_PASSAGES, NICENESS, POLL_SECS
from chat.rag.vectors.embedding import EncoderInput
from chat.recall.passages import context_of
from inference.runtime.repeating_thread import RepeatingThread

log = logging.getLogger(__name__)


def start() -> RepeatingThread:
    """Start the thread, which runs until the process ends."""
    encoding = ""

    def embed_in_the_background() -> None:
        nonlocal encoding
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        if encoding != (encoding := embedding.target_encoding()):
            discard_outdated(encoding)
        embed_all()

    loop = RepeatingThread("message vectors", POLL_SECS, embed_in_the_background)
    loop.begin()
    return loop


def warm_up() -> None:
    """Load the encoder when there are passages: the first question of a long conversation would wait for it."""
    try:
        if MessagePassage.objects.exists():
            embedding.unavailable_reason()
    except DatabaseError as error:
        log.warning("encoder not loaded yet error=%s", error)
    finally:
        connection.close()


def discard_outdated(encoding: str) -> None:
    """Put passages whose vectors belong to another encoding back on the work list."""
    outdated = MessagePassage.objects.exclude(encoding__in=("", encoding))
    if n_outdated := outdated.update(embedding=b"", encoding=""):
        log.info("messages are embedded anew encoding=%s passages=%s", encoding, n_outdated)


def embed_all() -> None:
    """Embed all passages without a vector; do nothing without an encoder."""
    while embed_some():
        pass


def embed_some() -> int:
    """Embed one batch and return its size. Two processes may compute the same batch."""
    pending = MessagePassage.objects.filter(encoding="")
    batch = list(pending.select_related("message__generation").order_by("pk")[:BATCH_PASSAGES])
    encoding = embedding.target_encoding()
    if not batch or embedding.unavailable_reason(encoding):
        return 0
    vectors = embedding.embed_passages_single_threaded(_inputs(batch), encoding)
    if vectors is None:
        return 0
    for row, vector in zip(batch, vectors, strict=True):
        # The condition skips rows that were deleted, or embedded by another process, meanwhile.
        pending.filter(pk=row.pk).update(embedding=embedding.as_bytes(vector), encoding=encoding)
    return len(batch)


def _inputs(batch: list[MessagePassage]) -> list[EncoderInput]:
    """Return each passage with its context, which may be the end of the message before its own."""
    conversations = {row.message.conversation_id for row in batch}
    positions = {row.message.position - 1 for row in batch}
    rows = Message.objects.filter(conversation__in=conversations, position__in=positions).select_related("generation")
    texts = {(row.conversation_id, row.position): row.text for row in rows}
    inputs = []
    for row in batch:
        message = row.message
        before = texts.get((message.conversation_id, message.position - 1), "")
        context = context_of(Role(message.role), message.text, row.start, before)
        inputs.append(EncoderInput(message.text[row.start : row.end], context))
    return inputs
