"""Gives vectors to passages that were stored without: long recordings that services index, and whatever came in while
the embedding model was missing. The passages themselves are the list of what is to be done, so a kill loses nothing.

Every web process runs this. Until it is done such passages are found by their words alone.
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

LOOK_SECS = 1.0
# A third of a second's work on one core: so long a lock is held on PostgreSQL, and so much is lost when we are killed.
PASSAGES_AT_ONCE = 48
NICENESS = 10


def start() -> RepeatingThread:
    """Look for such passages as long as this process lives."""
    loop = RepeatingThread("vectors", LOOK_SECS, _look)
    loop.begin()
    return loop


def _look() -> None:
    # One core, and only what answers leave of it: nobody waits for this. Linux keeps a niceness for each thread.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    embed_all()


def embed_all() -> None:
    """All there are; none when there is no model."""
    if Passage.objects.filter(embedding=None).exists() and not embedding.unavailable_reason():
        while embed_some():
            pass


def embed_some() -> int:
    """How many passages got a vector. Another process skips the ones that this one holds; on SQLite, where locks would
    stop all writers, it would compute the same again."""
    is_locking = connection.features.has_select_for_update_skip_locked
    with transaction.atomic() if is_locking else nullcontext():
        rows = Passage.objects.filter(embedding=None).order_by("pk").select_for_update(skip_locked=True)
        found = list(rows.values_list("pk", "text")[:PASSAGES_AT_ONCE])
        vectors = embedding.embed_single_threaded([text for _, text in found])
        if vectors is None:
            return 0
        with transaction.atomic():
            for (passage_id, _), vector in zip(found, vectors, strict=True):
                # Not one that was deleted meanwhile, or that another process was faster with.
                Passage.objects.filter(pk=passage_id, embedding=None).update(embedding=embedding.as_bytes(vector))
    return len(found)
