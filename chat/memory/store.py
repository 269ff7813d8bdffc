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

from chat.memory import embedding, fulltext, results
from chat.memory.filters import FilterError, allowed_rows, in_span
from chat.memory.index import Index
from chat.memory.query import MemoryQuery, Search
from chat.memory.ranking import Ranked, best, join
from chat.memory.results import Hit
from chat.memory.snapshot import Mask, Rows, Scores, Snapshot
from chat.memory.understanding import Understood, understand

log = logging.getLogger(__name__)

MAX_QUERY_CHARS = 2_000
MAX_TOP_K = 1_000
MIN_DEPTH = 200  # of each ranking that is joined
# Weights of the rankings that are joined, tried with bench/memory.py.
EVERYWHERE, WHERE_MEANT, NEWEST = 1.0, 2.0, 2.0
RECENCY_SHARE = 0.1  # what being of now adds to a score, at most
ALIKE = 0.25  # how far below the best similarity something may be about the same
DAY_SECS = 86_400.0
NOTHING = (np.zeros(0, np.intp), np.zeros(0, np.float32))
INDEX = Index()


@dataclass(frozen=True)
class Rankings:
    """What both searches found among the allowed rows; ``recency`` is 1 for now and halves with each half-life."""

    allowed: Mask
    vector: tuple[Rows, Scores]
    text: tuple[Rows, Scores]
    recency: NDArray[np.float64]


def search(query: MemoryQuery) -> Search:
    """Never raises for what the database, the model or a filter does; ``error`` says it."""
    started = time.monotonic()
    try:
        found = _search(replace(query, text=query.text[:MAX_QUERY_CHARS]))
    except FilterError as error:
        found = Search(error=str(error))
    except DatabaseError:
        log.exception("The memories could not be searched")
        found = Search(error="the memories could not be searched")
    return replace(found, latency_ms=(time.monotonic() - started) * 1000)


def _search(query: MemoryQuery) -> Search:
    top_k = max(0, min(query.top_k, MAX_TOP_K))
    snapshot = INDEX.fresh()
    allowed = allowed_rows(snapshot, query)
    understood = _understood(query, snapshot, allowed)
    note = embedding.problem()
    if not top_k or not allowed.any():
        return Search(understood=understood.as_dict(), note=note)
    rankings = _rankings(query, snapshot, allowed)
    scores = join(_lists(query, snapshot, rankings, understood, depth=max(MIN_DEPTH, 2 * top_k)))
    scores = {row: score * (1 + RECENCY_SHARE * float(rankings.recency[row])) for row, score in scores.items()}
    hits = [_hit(snapshot, rankings, row, scores[row]) for row in sorted(scores, key=lambda row: (-scores[row], -row))]
    sources = results.sources(hits, top_k=top_k, with_neighbours=query.with_neighbours)
    return Search(sources=tuple(sources), understood=understood.as_dict(), note=note)


def _understood(query: MemoryQuery, snapshot: Snapshot, allowed: Mask) -> Understood:
    """Only what the asker may see is known: not even names of others are given away."""
    return understand(
        query.text,
        today=query.now.date(),
        speakers=snapshot.texts("speaker", allowed),
        emotions=snapshot.texts("emotion", allowed),
    )


def _rankings(query: MemoryQuery, snapshot: Snapshot, allowed: Mask) -> Rankings:
    ids, scores = fulltext.matches(query.text)
    rows, are_there = snapshot.rows_of(ids)
    are_there &= allowed[rows] if len(rows) else are_there
    vectors = embedding.embed([query.text]) if any(map(str.isalnum, query.text)) else None
    age_days = (query.now.timestamp() - snapshot.columns.said_at) / DAY_SECS
    return Rankings(
        allowed=allowed,
        vector=NOTHING if vectors is None else snapshot.similarities(vectors[0], allowed),
        text=(rows[are_there], scores[are_there]),
        # What is said to come later is no more recent than now.
        recency=0.5 ** (np.maximum(age_days, 0.0) / settings.RAG_RECENCY_HALF_LIFE_DAYS),
    )


def _lists(
    query: MemoryQuery, snapshot: Snapshot, found: Rankings, understood: Understood, *, depth: int
) -> list[Ranked]:
    both = [part for part in (found.vector, found.text) if len(part[0])]
    if not both:  # a question without words: the newest is all that can be said
        return [_newest(snapshot, np.flatnonzero(found.allowed), depth)]
    lists = [best(*part, depth, weight=EVERYWHERE) for part in both]
    for meant in _meant(query, snapshot, found.allowed, understood):
        lists += [best(*part, depth, weight=WHERE_MEANT, among=meant) for part in both]
    if understood.is_latest:
        lists.append(_newest(snapshot, _about_the_same(lists, found), depth))
    return lists


def _meant(query: MemoryQuery, snapshot: Snapshot, allowed: Mask, understood: Understood) -> list[Mask]:
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


def _newest(snapshot: Snapshot, rows: Rows, depth: int) -> Ranked:
    return best(rows, snapshot.columns.said_at[rows].astype(np.float64), depth, weight=NEWEST)


def _about_the_same(lists: list[Ranked], found: Rankings) -> Rows:
    """Of what the lists hold, the rows about as similar to the question as the best."""
    rows, similarities = found.vector
    if not len(rows):
        return lists[0].rows[:10]
    near = rows[similarities >= similarities.max() - ALIKE]
    return np.intersect1d(near, np.concatenate([ranked.rows for ranked in lists]))


def _hit(snapshot: Snapshot, found: Rankings, row: int, score: float) -> Hit:
    return Hit(
        passage_id=int(snapshot.columns.id[row]),
        score=score,
        vector=_score_of(found.vector, row),
        text=_score_of(found.text, row),
        recency=float(found.recency[row]),
    )


def _score_of(part: tuple[Rows, Scores], row: int) -> float | None:
    places = np.flatnonzero(part[0] == row)
    return float(part[1][places[0]]) if len(places) else None
