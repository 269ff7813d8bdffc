"""Retrieval: from the external RAG service when one is configured, else from the built-in store."""

from django.conf import settings

from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.retrieval import local

__all__ = ["RetrievalQuery", "RetrievalResult", "retrieve"]


def retrieve(query: RetrievalQuery) -> RetrievalResult:
    """Retrieve at most ``top_k`` sources, best first, within RAG_TIMEOUT_SECS; failures are in ``error``.

    Must not be called on a thread that runs an event loop.
    """
    if settings.RAG_SERVICE_URL:
        # Late: its client of HTTP takes longer to import than a command takes to begin an answer.
        from chat.rag.retrieval import remote  # noqa: PLC0415

        return remote.search(query=query.text, top_k=query.top_k, filters=query.filters, kind=query.kind)
    return local.search(query)
