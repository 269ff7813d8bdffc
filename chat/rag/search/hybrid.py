"""Hybrid search of the built-in store: fuses the rankings of vector search and full-text search.

Filters of the request exclude passages before any ranking. Hints read from the question boost matching passages and
exclude none.
"""

import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC

import numpy as np
from django.conf import settings
from django.db import DatabaseError
from numpy.typing import NDArray

from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.search import fulltext, results
from chat.rag.search.filters import FilterError, allowed_rows, in_span
from chat.rag.search.fulltext import Matches
from chat.rag.search.fusion import Points, RankedRows, among, by_level, by_order, fuse
from chat.rag.search.query_understanding import QueryHints, understand_query
from chat.rag.search.relevance import related
from chat.rag.search.results import Hit
from chat.rag.vectors import embedding
from chat.rag.vectors.index import VectorIndex
from chat.rag.vectors.snapshot import Mask, Rows, Scores, VectorSnapshot

log = logging.getLogger(__name__)

MAX_QUERY_CHARS = 2_000
MAX_TOP_K = 1_000
MIN_DEPTH = 200  # rows of each ranking that take part in the fusion
# Weights of the fused rankings, tuned with bench.memory on other seeds than the one it reports.
WEIGHT_ALL, WEIGHT_HINTED, WEIGHT_NEWEST = 1.0, 2.0, 2.0
WEIGHT_TEXT = 2.0  # relative to the vector ranking; scaled by the score, so that poor matches add little
RECENCY_SHARE = 0.1  # largest gain of a score by recency
# Distance from the best score within which rows count as equally good, by similarity and by words.
NEAR_VECTOR, NEAR_TEXT = 0.2, 0.05
DAY_SECS = 86_400.0
NO_HITS = (np.zeros(0, np.intp), np.zeros(0, np.float32))
INDEX = VectorIndex()


@dataclass(frozen=True)
class Rankings:
    """Results of both searches among the allowed rows; ``recency`` is 1 for now and halves with each half-life."""

    allowed: Mask
    vector: tuple[Rows, Scores]
    words: Matches
    recency: NDArray[np.float64]

    @property
    def text(self) -> tuple[Rows, Scores]:
        return self.words.hits

    @classmethod
    def of(cls, query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask) -> "Rankings":
        """Run both searches."""
        vectors = embedding.embed([query.text]) if any(map(str.isalnum, query.text)) else None
        age_days = (query.now.timestamp() - snapshot.columns.said_at) / DAY_SECS
        return cls(
            allowed=allowed,
            vector=NO_HITS if vectors is None else snapshot.similarities(vectors[0], allowed),
            words=fulltext.matches(query.text, snapshot, allowed),
            # A time in the future counts as now.
            recency=np.exp2(-np.maximum(age_days, 0.0) / settings.RAG_RECENCY_HALF_LIFE_DAYS),
        )

    def within(self, mask: Mask) -> "Rankings":
        """Restrict both results to the rows of ``mask``."""
        words = replace(self.words, hits=among(*self.text, mask))
        return replace(self, vector=among(*self.vector, mask), words=words)

    def hits(self, snapshot: VectorSnapshot, scores: Points, rows: Rows) -> list[Hit]:
        """Return ``rows`` as hits, with None for a search that did not return the row."""
        parts = []
        for part_rows, part_scores in (self.vector, self.text):
            by_row = np.full(len(snapshot), np.nan, np.float32)
            by_row[part_rows] = part_scores
            parts.append([None if np.isnan(score) else score for score in by_row[rows].tolist()])
        ids, recency = snapshot.columns.id[rows].tolist(), self.recency[rows].tolist()
        return [Hit(*values) for values in zip(ids, scores[rows].tolist(), *parts, recency, strict=True)]


def search(query: RetrievalQuery) -> RetrievalResult:
    """Search the store; failures of the database and unusable filters are in ``error``."""
    started = time.monotonic()
    try:
        result = _search(replace(query, text=query.text[:MAX_QUERY_CHARS]))
    except FilterError as error:
        result = RetrievalResult(error=str(error))
    except DatabaseError:
        log.exception("memory search failed")
        result = RetrievalResult(error="the memories could not be searched")
    return replace(result, latency_ms=(time.monotonic() - started) * 1000)


def _search(query: RetrievalQuery) -> RetrievalResult:
    top_k = max(0, min(query.top_k, MAX_TOP_K))
    snapshot = INDEX.fresh()
    allowed = allowed_rows(snapshot, query)
    # Names of the allowed rows only: those of other owners must not leak.
    hints = understand_query(
        query.text,
        today=query.now.date(),
        speakers=snapshot.texts("speaker", allowed),
        emotions=snapshot.texts("emotion", allowed),
    )
    note = embedding.unavailable_reason()
    if not top_k or not allowed.any():
        return RetrievalResult(understood=hints.as_dict(), note=note)
    rankings = Rankings.of(query, snapshot, allowed)
    hinted = _hinted_rows(query, snapshot, allowed, hints)
    depth = max(MIN_DEPTH, 2 * top_k)
    scores = fuse(_ranked_lists(snapshot, rankings, hints, hinted, depth=depth), len(snapshot))
    scores *= 1 + RECENCY_SHARE * rankings.recency
    if query.only_related:
        scores[~related(len(snapshot), rankings.vector, rankings.words, hints, hinted)] = 0.0
    rows = np.flatnonzero(scores)
    # Twice the depth: duplicates are dropped later.
    order = by_order(rows, scores[rows], 2 * depth, weight=1.0).rows
    sources = results.sources(rankings.hits(snapshot, scores, order), top_k, with_neighbours=query.with_neighbours)
    return RetrievalResult(sources=tuple(sources), understood=hints.as_dict(), note=note)


def _ranked_lists(
    snapshot: VectorSnapshot, rankings: Rankings, hints: QueryHints, hinted: list[Mask], *, depth: int
) -> list[RankedRows]:
    if not len(rankings.vector[0]) and not len(rankings.text[0]):
        # A question without words: the newest rows.
        return [_newest(snapshot, np.flatnonzero(rankings.allowed), depth)]
    lists = _rank_both(rankings, depth, WEIGHT_ALL)
    for mask in hinted:
        lists += _rank_both(rankings.within(mask), depth, WEIGHT_HINTED)
    if hints.is_latest:
        near_best = np.union1d(_near_the_best(*rankings.vector, NEAR_VECTOR), _near_the_best(*rankings.text, NEAR_TEXT))
        lists.append(_newest(snapshot, near_best, depth))
    return lists


def _rank_both(rankings: Rankings, depth: int, weight: float) -> list[RankedRows]:
    return [by_order(*rankings.vector, depth, weight=weight), by_level(*rankings.text, weight=WEIGHT_TEXT * weight)]


def _hinted_rows(query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask, hints: QueryHints) -> list[Mask]:
    """Return the rows that all hints point to, as one mask, or one mask per hint when no allowed row matches all."""
    masks = []
    if hints.speakers:
        masks.append(snapshot.has("speaker", hints.speakers))
    if hints.span:
        masks.append(in_span(snapshot, hints.span, query.now.tzinfo or UTC))
    if emotions := {*hints.emotions, *(name.lower() for name in query.filters.bias_emotions)}:
        masks.append(snapshot.has("emotion", emotions))
    if not masks:
        return []
    together = np.logical_and.reduce(masks)
    return [together] if (together & allowed).any() else masks


def _newest(snapshot: VectorSnapshot, rows: Rows, depth: int) -> RankedRows:
    return by_order(rows, snapshot.columns.said_at[rows].astype(np.float64), depth, weight=WEIGHT_NEWEST)


def _near_the_best(rows: Rows, scores: Scores, distance: float) -> Rows:
    return rows[scores >= scores.max() - distance] if len(rows) else rows
