"""Embedding backfill: computes the vectors of passages that were stored without, in every web process.

Such passages come from long recordings, and from times without an embedding model. They are their own work list, so a
killed process loses nothing; until then full-text search alone finds them.
"""

import logging
import os
import threading
from contextlib import nullcontext

from django.db import connection, transaction

from chat.rag.models import Passage
from chat.rag.vectors import embedding
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
    """Embed all pending passages; do nothing without a model."""
    if Passage.objects.filter(embedding=None).exists() and not embedding.unavailable_reason():
        while embed_some():
            pass


def embed_some() -> int:
    """Embed one batch and return its size.

    Other processes skip the rows locked here. SQLite has no row locks and a table lock would block all writers, so
    there two processes may compute the same batch.
    """
    is_locking = connection.features.has_select_for_update_skip_locked
    with transaction.atomic() if is_locking else nullcontext():
        rows = Passage.objects.filter(embedding=None).order_by("pk").select_for_update(skip_locked=True)
        batch = list(rows.values_list("pk", "text")[:BATCH_PASSAGES])
        vectors = embedding.embed_single_threaded([text for _, text in batch])
        if vectors is None:
            return 0
        with transaction.atomic():
            for (passage_id, _), vector in zip(batch, vectors, strict=True):
                # The condition skips rows that were deleted, or embedded by another process, meanwhile.
                Passage.objects.filter(pk=passage_id, embedding=None).update(embedding=embedding.as_bytes(vector))
    return len(batch)
