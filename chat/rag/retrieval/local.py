"""Search of the built-in store within RAG_TIMEOUT_SECS, and its warm-up at the start of a web process."""

import contextvars
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.utils import timezone

from chat.rag.models import Passage
from chat.rag.query import RetrievalQuery, RetrievalResult, SourceFilters
from chat.rag.search import hybrid
from inference.runtime.threads import call_with_own_connection

log = logging.getLogger(__name__)

# Searches that hang keep their thread; with all of them taken, the next ones time out without starting.
MAX_SEARCHES = 8
_threads = ThreadPoolExecutor(MAX_SEARCHES, thread_name_prefix="memory-search")


def search(query: RetrievalQuery) -> RetrievalResult:
    """Search for at most RAG_TIMEOUT_SECS; later failures of the search are logged by it."""
    # Another thread would not see what the caller's transaction has written.
    if connection.in_atomic_block:
        return hybrid.search(query)
    started = time.monotonic()
    context = contextvars.copy_context()
    future = _threads.submit(context.run, _search, query)
    try:
        return future.result(settings.RAG_TIMEOUT_SECS)
    except TimeoutError:
        future.cancel()
        latency_ms = (time.monotonic() - started) * 1000
        log.warning("memory search timed out waited_ms=%.0f", latency_ms)
        error = f"the memories could not be searched within {settings.RAG_TIMEOUT_SECS:g} s"
        return RetrievalResult(error=error, latency_ms=latency_ms)


def _search(query: RetrievalQuery) -> RetrievalResult:
    return call_with_own_connection(hybrid.search, query)


def warm_up() -> None:
    """Load the embedding model and the vectors when there are memories: the first question would wait for them."""
    query = RetrievalQuery(text="Hello", top_k=1, filters=SourceFilters(), owner=None, now=timezone.localtime())
    try:
        if Passage.objects.exists():
            hybrid.search(query)
    except DatabaseError as error:
        log.warning("memories not loaded yet error=%s", error)
    finally:
        connection.close()
