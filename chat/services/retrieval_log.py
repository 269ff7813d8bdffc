"""What is kept of a search: as it was asked and understood, everything it found, and what of that was shown.

A copy, so that it still says what an answer rests on when the memories themselves are gone.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.sources import Source

# Of what was not shown a beginning is enough to recognise it; what was shown is kept whole, as a source.
MAX_HIT_CHARS = 300
CUT_MARK = " …"


def record(query: RetrievalQuery, search: RetrievalResult, shown: Sequence[Source]) -> dict[str, Any]:
    """Columns of a ``Retrieval``. ``shown`` are the sources of the prompt, documents of the client among them."""
    return {
        "query": query.text,
        "filters": {"top_k": query.top_k} | asdict(query.filters),
        "understood": dict(search.understood),
        "hits": [_hit(source, shown) for source in search.sources],
        "sources": [source.as_wire() for source in shown],
        "n_hits": len(search.sources),
        "latency_ms": search.latency_ms,
        "error": search.error,
        "note": search.note,
    }


def _hit(source: Source, shown: Sequence[Source]) -> dict[str, Any]:
    label = next((each.label for each in shown if _is_of(each, source)), "")
    text = source.text if len(source.text) <= MAX_HIT_CHARS else source.text[:MAX_HIT_CHARS].rstrip() + CUT_MARK
    return source.as_wire() | {"label": label, "text": text, "scores": dict(source.scores)}


def _is_of(shown: Source, found: Source) -> bool:
    """Whether the one shown is the one found, or as much of it as fitted."""
    same = (shown.kind, shown.doc_id, shown.time) == (found.kind, found.doc_id, found.time)
    return same and found.text.startswith(shown.text.removesuffix(CUT_MARK))
