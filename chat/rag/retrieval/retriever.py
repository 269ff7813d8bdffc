"""The one door to memories: asks the external service when there is one, else the store in our own database."""

from django.conf import settings

from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.retrieval import remote
from chat.rag.search import hybrid

__all__ = ["RetrievalQuery", "RetrievalResult", "retrieve"]


def retrieve(query: RetrievalQuery) -> RetrievalResult:
    """At most ``top_k`` memories, best first. Never raises for what a service or the index does: that is told in
    ``error``. Must not be called on a thread that runs an event loop."""
    if settings.RAG_SERVICE_URL:
        return remote.search(query=query.text, top_k=query.top_k, filters=query.filters, kind=query.kind)
    return hybrid.search(query)
