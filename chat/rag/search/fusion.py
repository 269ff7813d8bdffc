"""Joins rankings: reciprocal ranks of several lists, each with its weight; then drops what was said already.

Knows rows of a snapshot and their scores, no texts but those it compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.rag.search.terms import FILLERS, words
from chat.rag.vectors.snapshot import Mask, Rows, Scores

# Of "Reciprocal Rank Fusion" (Cormack, Clarke, Büttcher 2009): how little the first ranks tower above the next ones.
# By words they tower more: a few rows that have the rare words decide, hundreds that share a common one say little.
BY_ORDER, BY_LEVEL = 60, 5
Points = NDArray[np.float64]


@dataclass(frozen=True)
class RankedRows:
    """Some rows with the points that they get; the first of a list gets ``weight``, or less when it matches poorly."""

    rows: Rows
    points: Points
    weight: float


def by_order(rows: Rows, scores: Scores | Points, depth: int, *, weight: float) -> RankedRows:
    """The best ``depth`` rows, each with its own rank; of equal scores the later row is better."""
    if len(rows) > depth:
        chosen = np.argpartition(-scores, depth - 1)[:depth]
        rows, scores = rows[chosen], scores[chosen]
    rows = rows[np.lexsort((-rows, -scores))]
    return RankedRows(rows, weight * _share(np.arange(1.0, len(rows) + 1), BY_ORDER), weight)


def by_level(rows: Rows, scores: Scores, *, weight: float) -> RankedRows:
    """All rows, weighted by the score itself (0 to 1); equal scores share the mean of their ranks: one row that has a
    name is its best match, thousands that have one common word are a poor match each."""
    _, level, n_equal = np.unique(scores, return_inverse=True, return_counts=True)
    n_better = len(rows) - np.cumsum(n_equal)
    rank = n_better + (n_equal + 1) / 2
    return RankedRows(rows, weight * scores * _share(rank, BY_LEVEL)[level], weight)


def _share(rank: Points, constant: int) -> Points:
    """1 for the first rank, half of it ``constant`` + 1 ranks later."""
    return (constant + 1) / (constant + rank)


def among(rows: Rows, scores: Scores, mask: Mask) -> tuple[Rows, Scores]:
    chosen = mask[rows]
    return rows[chosen], scores[chosen]


def join(lists: Sequence[RankedRows], n: int) -> Points:
    """For each of ``n`` rows the sum of its points, as a share of what the first of every list would have."""
    points = np.zeros(n)
    for ranked in lists:
        points[ranked.rows] += ranked.points
    return points / (sum(ranked.weight for ranked in lists) or 1.0)


class DuplicateFilter:
    """Recognises what was said already: the same words in the same order, by the same speaker. A "not" more, or two
    names the other way round, say something else."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def is_new(self, speaker: str, text: str) -> bool:
        said = words(text)
        key = (speaker, tuple(word for word in said if word not in FILLERS) or tuple(said))
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new
