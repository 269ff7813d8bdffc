"""The one door to memories: asks the external service when there is one, else the store in our own database."""

from django.conf import settings

from chat.rag.query import MemoryQuery, Search
from chat.rag.retrieval import remote
from chat.rag.search import engine

__all__ = ["MemoryQuery", "Search", "search"]


def search(query: MemoryQuery) -> Search:
    """At most ``top_k`` memories, best first. Never raises for what a service or the index does: that is told in
    ``error``. Must not be called on a thread that runs an event loop."""
    if settings.RAG_SERVICE_URL:
        return remote.search(query=query.text, top_k=query.top_k, filters=query.filters, kind=query.kind)
    return engine.search(query)
