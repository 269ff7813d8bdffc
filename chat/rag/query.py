"""Query and result of a retrieval, the same for the built-in store and an external service."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chat.rag.sources import Source


@dataclass(frozen=True, kw_only=True)
class SourceFilters:
    """Restrictions on the memories to search; dates are ISO 8601 strings, as in the RAG protocol."""

    speakers: tuple[str, ...] = ()
    start_date: str | None = None
    end_date: str | None = None
    last_n_transcripts: int | None = None
    bias_emotions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RetrievalQuery:
    """A question and its search options.

    ``owner``: also search this owner's memories beside the shared ones; None or "" searches the shared ones alone.
    ``now``: reference time of relative dates such as "yesterday". ``kind``: one of ``sources.KINDS``, None for all.
    ``with_neighbours``: extend a segment by the lines around it. ``only_related``: drop passages below the relevance
    threshold even when nothing better exists. ``n_rejected``: also return so many of those dropped, for people.
    """

    text: str
    top_k: int
    filters: SourceFilters
    owner: str | None
    now: datetime
    kind: str | None = None
    with_neighbours: bool = True
    only_related: bool = True
    n_rejected: int = 0


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """Retrieved sources, best first; ``rejected`` are the best of those below the relevance threshold.

    ``error`` may be shown to users and is empty on success. ``understood`` holds the hints read from the question, by
    the field names of SourceFilters. ``note`` describes a degraded search (no embeddings).
    """

    sources: tuple[Source, ...] = ()
    rejected: tuple[Source, ...] = ()
    error: str = ""
    latency_ms: float = 0.0
    understood: dict[str, Any] = field(default_factory=dict)
    note: str = ""
