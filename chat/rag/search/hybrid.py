"""The built-in home of memories: searches our own database by meaning and by words, and joins the two.

Filters come before any ranking; what only the words of the question suggest raises, and hides nothing.
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
from chat.rag.search.fusion import Points, RankedRows, among, by_level, by_order, join
from chat.rag.search.query_understanding import QueryHints, understand_query
from chat.rag.search.relevance import related
from chat.rag.search.results import Hit
from chat.rag.vectors import embedding
from chat.rag.vectors.index import VectorIndex
from chat.rag.vectors.snapshot import Mask, Rows, Scores, VectorSnapshot

log = logging.getLogger(__name__)

MAX_QUERY_CHARS = 2_000
MAX_TOP_K = 1_000
MIN_DEPTH = 200  # of each ranking that is joined
# Weights of the rankings that are joined, tried with bench.memory on other seeds than the one it shows.
EVERYWHERE, WHERE_MEANT, NEWEST = 1.0, 2.0, 2.0
BY_WORDS = 2.0  # of a ranking by vectors; poor matches by words count for little of it
RECENCY_SHARE = 0.1  # what being of now adds to a score, at most
# How far below the best something may be and still be about the same, by similarity and by words.
ALIKE, ALIKE_IN_WORDS = 0.2, 0.05
DAY_SECS = 86_400.0
NOTHING = (np.zeros(0, np.intp), np.zeros(0, np.float32))
INDEX = VectorIndex()


@dataclass(frozen=True)
class Rankings:
    """What both searches found among the allowed rows; ``recency`` is 1 for now and halves with each half-life."""

    allowed: Mask
    vector: tuple[Rows, Scores]
    words: Matches
    recency: NDArray[np.float64]

    @property
    def text(self) -> tuple[Rows, Scores]:
        return self.words.hits

    def within(self, mask: Mask) -> "Rankings":
        """What was found in a part of the rows."""
        words = replace(self.words, hits=among(*self.text, mask))
        return replace(self, vector=among(*self.vector, mask), words=words)


def search(query: RetrievalQuery) -> RetrievalResult:
    """Never raises for what the database, the model or a filter does; ``error`` says it."""
    started = time.monotonic()
    try:
        found = _search(replace(query, text=query.text[:MAX_QUERY_CHARS]))
    except FilterError as error:
        found = RetrievalResult(error=str(error))
    except DatabaseError:
        log.exception("The memories could not be searched")
        found = RetrievalResult(error="the memories could not be searched")
    return replace(found, latency_ms=(time.monotonic() - started) * 1000)


def _search(query: RetrievalQuery) -> RetrievalResult:
    top_k = max(0, min(query.top_k, MAX_TOP_K))
    snapshot = INDEX.fresh()
    allowed = allowed_rows(snapshot, query)
    understood = _understood(query, snapshot, allowed)
    note = embedding.unavailable_reason()
    if not top_k or not allowed.any():
        return RetrievalResult(understood=understood.as_dict(), note=note)
    rankings = _rankings(query, snapshot, allowed)
    meant = _meant(query, snapshot, allowed, understood)
    depth = max(MIN_DEPTH, 2 * top_k)
    scores = join(_lists(snapshot, rankings, understood, meant, depth=depth), len(snapshot))
    scores *= 1 + RECENCY_SHARE * rankings.recency
    if query.only_related:
        scores[~related(len(snapshot), rankings.vector, rankings.words, understood, meant)] = 0.0
    rows = np.flatnonzero(scores)
    # Twice the depth: some say the same, and fall away.
    order = by_order(rows, scores[rows], 2 * depth, weight=1.0).rows
    sources = results.sources(_hits(snapshot, rankings, scores, order), top_k, with_neighbours=query.with_neighbours)
    return RetrievalResult(sources=tuple(sources), understood=understood.as_dict(), note=note)


def _understood(query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask) -> QueryHints:
    """Only what the asker may see is known: not even names of others are given away."""
    return understand_query(
        query.text,
        today=query.now.date(),
        speakers=snapshot.texts("speaker", allowed),
        emotions=snapshot.texts("emotion", allowed),
    )


def _rankings(query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask) -> Rankings:
    vectors = embedding.embed([query.text]) if any(map(str.isalnum, query.text)) else None
    age_days = (query.now.timestamp() - snapshot.columns.said_at) / DAY_SECS
    return Rankings(
        allowed=allowed,
        vector=NOTHING if vectors is None else snapshot.similarities(vectors[0], allowed),
        words=fulltext.matches(query.text, snapshot, allowed),
        # What is said to come later is no more recent than now.
        recency=np.exp2(-np.maximum(age_days, 0.0) / settings.RAG_RECENCY_HALF_LIFE_DAYS),
    )


def _lists(
    snapshot: VectorSnapshot, found: Rankings, understood: QueryHints, meant: list[Mask], *, depth: int
) -> list[RankedRows]:
    if not len(found.vector[0]) and not len(found.text[0]):
        # A question without words: the newest is all that can be said.
        return [_newest(snapshot, np.flatnonzero(found.allowed), depth)]
    lists = _both(found, depth, EVERYWHERE)
    for mask in meant:
        lists += _both(found.within(mask), depth, WHERE_MEANT)
    if understood.is_latest:
        lists.append(_newest(snapshot, _about_the_same(found), depth))
    return lists


def _both(found: Rankings, depth: int, weight: float) -> list[RankedRows]:
    return [by_order(*found.vector, depth, weight=weight), by_level(*found.text, weight=BY_WORDS * weight)]


def _meant(query: RetrievalQuery, snapshot: VectorSnapshot, allowed: Mask, understood: QueryHints) -> list[Mask]:
    """Where the words of the question point: to all of it at once when there is such a place, else to each."""
    masks = []
    if understood.speakers:
        masks.append(snapshot.has("speaker", understood.speakers))
    if understood.span:
        masks.append(in_span(snapshot, understood.span, query.now.tzinfo or UTC))
    if emotions := {*understood.emotions, *(name.lower() for name in query.filters.bias_emotions)}:
        masks.append(snapshot.has("emotion", emotions))
    if not masks:
        return []
    together = np.logical_and.reduce(masks)
    return [together] if (together & allowed).any() else masks


def _newest(snapshot: VectorSnapshot, rows: Rows, depth: int) -> RankedRows:
    return by_order(rows, snapshot.columns.said_at[rows].astype(np.float64), depth, weight=NEWEST)


def _about_the_same(found: Rankings) -> Rows:
    """The rows about as similar to the question as the best, or that have about as many of its words."""
    return np.union1d(_near_the_best(*found.vector, ALIKE), _near_the_best(*found.text, ALIKE_IN_WORDS))


def _near_the_best(rows: Rows, scores: Scores, distance: float) -> Rows:
    return rows[scores >= scores.max() - distance] if len(rows) else rows


def _hits(snapshot: VectorSnapshot, found: Rankings, scores: Points, rows: Rows) -> list[Hit]:
    ids, recency = snapshot.columns.id[rows].tolist(), found.recency[rows].tolist()
    vector, text = (_scores_of(part, rows, len(snapshot)) for part in (found.vector, found.text))
    return [Hit(*each) for each in zip(ids, scores[rows].tolist(), vector, text, recency, strict=True)]


def _scores_of(part: tuple[Rows, Scores], rows: Rows, n: int) -> list[float | None]:
    """None for rows that this search did not find."""
    by_row = np.full(n, np.nan, np.float32)
    by_row[part[0]] = part[1]
    return [None if score != score else score for score in by_row[rows].tolist()]  # only NaN differs
