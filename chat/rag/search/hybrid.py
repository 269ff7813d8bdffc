"""Hybrid search of the built-in store: adds up the similarity of meaning and the matching words.

Filters of the request exclude passages before any ranking. Hints read from the question boost matching passages and
exclude none.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

import numpy as np
from django.conf import settings
from django.db import DatabaseError
from numpy.typing import NDArray

from chat.rag.models import Passage
from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.search import fulltext, results
from chat.rag.search.filters import FilterError, allowed_rows, in_span
from chat.rag.search.fulltext import Matches, WordLookup
from chat.rag.search.negation import asks_for_a_negation, negates
from chat.rag.search.ordering import Points, best
from chat.rag.search.query_understanding import QueryHints, understand_query, without_speakers
from chat.rag.search.relevance import relevance
from chat.rag.search.results import Hit
from chat.rag.sources import Source
from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import Vectors
from chat.rag.vectors.index import VectorIndex
from chat.rag.vectors.snapshot import Mask, Rows, Scores, VectorSnapshot

log = logging.getLogger(__name__)

MAX_QUERY_CHARS = 2_000
MAX_TOP_K = 1_000
MIN_DEPTH = 200  # rows that are read for the answer at least, since duplicates among them are dropped
# Parts of a score beside the similarity, which is 0 for unrelated texts and 1 for equal ones. Tuned with
# bench.retrieval on the half that it does not report; the figures are flat around these values.
WEIGHT_TEXT = 0.85
GAIN_HINTED, GAIN_NEWEST, GAIN_RECENT, GAIN_NEGATED = 0.2, 1.0, 0.03, 0.75
# Distance from the best score within which rows count as equally good for a question about the latest.
NEAR = 0.3
MIN_SIMILARITY = 0.001  # of a row that is compared at all: an unfiltered search returns it, last
BEST_SCORE = 2.0  # about that of a row that has everything, so that scores are mostly below 1
DAY_SECS = 86_400.0
NO_HITS = (np.zeros(0, np.intp), np.zeros(0, np.float32))
INDEX = VectorIndex()


@dataclass(frozen=True)
class Rankings:
    """Results of both searches among the allowed rows; ``recency`` is 1 for now and halves with each half-life.

    ``vector``: rows with a vector, and their similarity to the question: 0 for unrelated, 1 for equal texts.
    """

    allowed: Mask
    vector: tuple[Rows, Scores]
    words: Matches
    recency: NDArray[np.float64]

    @property
    def text(self) -> tuple[Rows, Scores]:
        return self.words.hits

    @classmethod
    def of(
        cls,
        query: RetrievalQuery,
        snapshot: VectorSnapshot,
        allowed: Mask,
        hints: QueryHints,
        rows_with: WordLookup,
    ) -> "Rankings":
        """Run both searches."""
        # Without vectors to compare, no encoder is loaded.
        is_comparable = any(map(str.isalnum, query.text)) and bool(snapshot.columns.has_vector.any())
        vector = _question_vector(query.text, snapshot, hints) if is_comparable else None
        by_meaning = NO_HITS
        if vector is not None:
            rows, cosines = snapshot.similarities(vector, allowed)
            by_meaning = rows, embedding.similarities(cosines, vector, snapshot.encoding)
        age_days = (query.now.timestamp() - snapshot.columns.said_at) / DAY_SECS
        return cls(
            allowed=allowed,
            vector=by_meaning,
            words=fulltext.matches(query.text, snapshot, allowed, rows_with),
            # A time in the future counts as now.
            recency=np.exp2(-np.maximum(age_days, 0.0) / settings.RAG_RECENCY_HALF_LIFE_DAYS),
        )

    def scores(self, snapshot: VectorSnapshot, hints: QueryHints, hinted: list[Mask]) -> Points:
        """Return the score of each row; 0 or less for rows that neither search returned."""
        scores = np.full(len(snapshot), -np.inf)
        rows, similarities = self.vector
        scores[rows] = np.maximum(similarities, MIN_SIMILARITY)
        rows, shares = self.text
        scores[rows] = np.maximum(scores[rows], 0.0) + WEIGHT_TEXT * shares
        if not len(self.vector[0]) and not len(rows):
            # A question without words: the newest rows.
            scores[self.allowed] = MIN_SIMILARITY
        is_found = np.isfinite(scores)
        for mask in hinted:
            scores[mask & is_found] += GAIN_HINTED * len(hinted) ** -0.5
        scores[is_found] += GAIN_RECENT * self.recency[is_found]
        if hints.is_latest or not (len(self.vector[0]) or len(rows)):
            near_best = np.flatnonzero(scores >= scores.max() - NEAR)
            newest = best(near_best, snapshot.columns.said_at[near_best].astype(np.float64), MIN_DEPTH)
            scores[newest] += GAIN_NEWEST * 0.5 ** np.arange(len(newest))
        return scores / BEST_SCORE

    def hits(self, snapshot: VectorSnapshot, scores: Points, rows: Rows, more: Mapping[str, NDArray[Any]]) -> list[Hit]:
        """Return ``rows`` as hits, with None for a search that did not return the row, and with ``more`` parts."""
        parts: dict[str, list[float | None]] = {}
        for name, (part_rows, part_scores) in (("vector", self.vector), ("text", self.text)):
            by_row = np.full(len(snapshot), np.nan, np.float32)
            by_row[part_rows] = part_scores
            parts[name] = [None if np.isnan(score) else score for score in by_row[rows].tolist()]
        for name, column in (("recency", self.recency), *more.items()):
            parts[name] = column[rows].tolist()
        ids, points = snapshot.columns.id[rows].tolist(), scores[rows].tolist()
        return [
            Hit(pk, score, {name: values[number] for name, values in parts.items()})
            for number, (pk, score) in enumerate(zip(ids, points, strict=True))
        ]


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
    note = embedding.unavailable_reason(snapshot.encoding)
    if not top_k or not allowed.any():
        return RetrievalResult(understood=hints.as_dict(), note=note)
    rankings = Rankings.of(query, snapshot, allowed, hints, fulltext.stored_words(snapshot, allowed))
    hinted = hinted_rows(query, snapshot, allowed, hints)
    scores = rankings.scores(snapshot, hints, hinted)
    is_candidate = allowed & (scores > 0)
    judged = relevance(
        query.text, len(snapshot), rankings.vector, rankings.words, hints, hinted, settings.RAG_MIN_SIMILARITY
    )
    is_kept = is_candidate & judged.mask if query.only_related else is_candidate
    depth = max(MIN_DEPTH, 2 * top_k)
    order = best(np.flatnonzero(is_kept), scores[is_kept], 2 * depth)
    if asks_for_a_negation(query.text):
        negating = _negating(snapshot, order)
        # Rows without a word of the question negate something else.
        scores[negating[rankings.words.in_text[negating]]] += GAIN_NEGATED / BEST_SCORE
        order = best(order, scores[order], len(order))
    more: dict[str, NDArray[Any]] = {
        "hints": np.sum([GAIN_HINTED * len(hinted) ** -0.5 * mask for mask in hinted], axis=0)
        if hinted
        else np.zeros(len(snapshot)),
        "evidence": judged.evidence,
        "floor": np.full(len(snapshot), judged.floor),
    }
    sources = results.sources(
        rankings.hits(snapshot, scores, order, more), top_k, with_neighbours=query.with_neighbours
    )
    rejected: list[Source] = []
    if query.n_rejected:
        is_rejected = is_candidate & ~is_kept
        below = best(np.flatnonzero(is_rejected), scores[is_rejected], query.n_rejected)
        rejected = results.sources(
            rankings.hits(snapshot, scores, below, more), query.n_rejected, with_neighbours=False
        )
    return RetrievalResult(sources=tuple(sources), rejected=tuple(rejected), understood=hints.as_dict(), note=note)


def _negating(snapshot: VectorSnapshot, rows: Rows) -> Rows:
    """Return those of ``rows`` whose text negates."""
    texts = Passage.objects.filter(pk__in=snapshot.columns.id[rows].tolist()).values_list("pk", "text")
    ids = np.array([pk for pk, text in texts if negates(text)], np.int64)
    return snapshot.rows_of(ids)[0]


def _question_vector(text: str, snapshot: VectorSnapshot, hints: QueryHints) -> Vectors | None:
    """Return the vector of the question; of one that names speakers, half way to that of the question without them."""
    vector = embedding.embed_question(text, snapshot.encoding)
    subject = without_speakers(text, hints.speakers)
    other = embedding.embed_question(subject, snapshot.encoding) if subject != text else None
    if vector is None or other is None:
        return vector
    between: Vectors = (vector + other) / np.linalg.norm(vector + other)
    return between


def hinted_rows(query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask, hints: QueryHints) -> list[Mask]:
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
