"""What can be asked of memories, and what comes back, whichever home they have."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chat.rag.sources import Source


@dataclass(frozen=True, kw_only=True)
class SourceFilters:
    """Which memories may be searched; dates are ISO 8601 texts as the memory service takes them."""

    speakers: tuple[str, ...] = ()
    start_date: str | None = None
    end_date: str | None = None
    last_n_transcripts: int | None = None
    bias_emotions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RetrievalQuery:
    """``owner``: whose own memories are searched beside the shared ones; None or "" for the shared ones alone.

    ``now`` is what "yesterday" in ``text`` is relative to; ``kind`` one of ``sources.KINDS``, None for all;
    ``with_neighbours``: a line of a recording comes with the lines around it. ``only_related``: what has nothing to do
    with ``text`` is left out, also when there is nothing better.
    """

    text: str
    top_k: int
    filters: SourceFilters
    owner: str | None
    now: datetime
    kind: str | None = None
    with_neighbours: bool = True
    only_related: bool = True


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """What came back. ``error`` is for the user's eyes and empty when all went well; ``understood`` are the filters
    that were read from the words, in the names of SourceFilters; ``note`` says what was searched less well than usual.
    """

    sources: tuple[Source, ...] = ()
    error: str = ""
    latency_ms: float = 0.0
    understood: dict[str, Any] = field(default_factory=dict)
    note: str = ""
