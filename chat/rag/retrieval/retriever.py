"""Retrieval: from the external RAG service when one is configured, else from the built-in store."""

from django.conf import settings

from chat.rag.query import RetrievalQuery, RetrievalResult

__all__ = ["RetrievalQuery", "RetrievalResult", "retrieve"]


def retrieve(query: RetrievalQuery) -> RetrievalResult:
    """Retrieve at most ``top_k`` sources, best first, within RAG_TIMEOUT_SECS; failures are in ``error``.

    Must not be called on a thread that runs an event loop.
    """
    # Late: a command that begins an answer without memories would take twice as long to import both.
    if settings.RAG_SERVICE_URL:
        from chat.rag.retrieval import remote  # noqa: PLC0415

        return remote.search(query=query.text, top_k=query.top_k, filters=query.filters, kind=query.kind)
    from chat.rag.retrieval import local  # noqa: PLC0415

    return local.search(query)
