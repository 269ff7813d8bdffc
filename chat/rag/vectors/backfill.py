"""Embedding backfill: computes the vectors of passages that were stored without, in every web process.

Such passages come from long recordings, and from times without an embedding model; when the settings ask for another
encoding, all passages get a second vector. They are their own work list, so a killed process loses nothing; until then
full-text search alone, or the old vectors, find them.
"""

import logging
import os
import threading
from contextlib import nullcontext

from django.db import connection, transaction

from chat.rag.models import Passage
from chat.rag.vectors import embedding, encodings
from chat.rag.vectors.encodings import active_encoding, encoder_input
from inference.runtime.repeating_thread import RepeatingThread

log = logging.getLogger(__name__)

POLL_SECS = 1.0
# About 0.3 s of work on one core: the time that PostgreSQL holds row locks, and the work that a kill loses.
BATCH_PASSAGES = 48
NICENESS = 10


def start() -> RepeatingThread:
    """Start the backfill thread, which runs until the process ends."""

    def embed_in_the_background() -> None:
        # Answers come first: one thread at low priority. Linux keeps a niceness per thread.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        embed_all()

    loop = RepeatingThread("vectors", POLL_SECS, embed_in_the_background)
    loop.begin()
    return loop


def embed_all() -> None:
    """Embed all pending passages, also in an encoding that is to come; do nothing without a model."""
    if Passage.objects.filter(embedding=None).exists() and not embedding.unavailable_reason(active_encoding()):
        while embed_some():
            pass
    if encodings.is_outdated() and not embedding.unavailable_reason():
        change_encoding()


def embed_some() -> int:
    """Embed one batch of passages without a vector and return its size."""
    return len(_embed_batch("embedding", active_encoding(), after=0))


def change_encoding() -> None:
    """Compute a second vector of all passages, then let these take the place of the old ones."""
    encoding = embedding.target_encoding()
    encodings.prepare(encoding)
    log.info("memories are embedded anew encoding=%s passages=%s", encoding, Passage.objects.count())
    is_complete = False
    while not is_complete:
        last = 0
        while batch := _embed_batch("successor", encoding, after=last):
            last = batch[-1]
        # Passages that were added behind this process's back, or are locked by another one, take another round.
        is_complete = encodings.take_over(encoding)
        if not is_complete and last == 0:
            return
    log.info("new vectors of memories are in use encoding=%s", encoding)


def _embed_batch(column: str, encoding: str, *, after: int) -> list[int]:
    """Fill ``column`` of the next passages that lack it and return their ids.

    Other processes skip the rows locked here. SQLite has no row locks and a table lock would block all writers, so
    there two processes may compute the same batch.
    """
    is_locking = connection.features.has_select_for_update_skip_locked
    missing = Passage.objects.filter(**{column: None})
    with transaction.atomic() if is_locking else nullcontext():
        rows = missing.filter(pk__gt=after).order_by("pk").select_related("segment")
        batch = list(rows.select_for_update(skip_locked=True, of=("self",))[:BATCH_PASSAGES])
        inputs = [encoder_input(passage, encoding) for passage in batch]
        vectors = embedding.embed_passages_single_threaded(inputs, encoding)
        if vectors is None:
            return []
        with transaction.atomic():
            # Another process may have replaced the vectors, or begun a change to yet another encoding, meanwhile.
            if not encodings.is_current(column, encoding):
                return []
            for passage, vector in zip(batch, vectors, strict=True):
                # The condition skips rows that were deleted, or embedded by another process, meanwhile.
                missing.filter(pk=passage.pk).update(**{column: embedding.as_bytes(vector)})
    return [passage.pk for passage in batch]
