"""Weighted reciprocal rank fusion, and the removal of duplicate texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.rag.search.terms import FILLERS, words
from chat.rag.vectors.snapshot import Mask, Rows, Scores

# The constant of "Reciprocal Rank Fusion" (Cormack, Clarke, Büttcher 2009); a greater one flattens the first ranks.
# Full-text rankings are steeper: few rows have the rare words, hundreds share a common one.
ORDER_CONSTANT, LEVEL_CONSTANT = 60, 5
Points = NDArray[np.float64]


@dataclass(frozen=True)
class RankedRows:
    """Rows of one ranking with their points; the first row gets ``weight``, or less when it matches poorly."""

    rows: Rows
    points: Points
    weight: float


def by_order(rows: Rows, scores: Scores | Points, depth: int, *, weight: float) -> RankedRows:
    """Rank the best ``depth`` rows; of equal scores the later row ranks first."""
    if len(rows) > depth:
        chosen = np.argpartition(-scores, depth - 1)[:depth]
        rows, scores = rows[chosen], scores[chosen]
    rows = rows[np.lexsort((-rows, -scores))]
    return RankedRows(rows, weight * _share(np.arange(1.0, len(rows) + 1), ORDER_CONSTANT), weight)


def by_level(rows: Rows, scores: Scores, *, weight: float) -> RankedRows:
    """Rank all rows, scaled by the score (0 to 1); equal scores share the mean of their ranks.

    A single row with a name is its best match; thousands with one common word are poor matches.
    """
    _, level, n_equal = np.unique(scores, return_inverse=True, return_counts=True)
    n_better = len(rows) - np.cumsum(n_equal)
    rank = n_better + (n_equal + 1) / 2
    return RankedRows(rows, weight * scores * _share(rank, LEVEL_CONSTANT)[level], weight)


def _share(rank: Points, constant: int) -> Points:
    """Return 1 for the first rank, and half of it ``constant`` + 1 ranks later."""
    return (constant + 1) / (constant + rank)


def among(rows: Rows, scores: Scores, mask: Mask) -> tuple[Rows, Scores]:
    """Restrict a search result to the rows of ``mask``."""
    chosen = mask[rows]
    return rows[chosen], scores[chosen]


def fuse(lists: Sequence[RankedRows], n: int) -> Points:
    """Sum the points of each of ``n`` rows, as a share of the points of a row that is first everywhere."""
    points = np.zeros(n)
    for ranked in lists:
        points[ranked.rows] += ranked.points
    return points / (sum(ranked.weight for ranked in lists) or 1.0)


class DuplicateFilter:
    """Recognises repeated texts: the same words in the same order by the same speaker, filler words aside."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def is_new(self, speaker: str, text: str) -> bool:
        all_words = words(text)
        key = (speaker, tuple(word for word in all_words if word not in FILLERS) or tuple(all_words))
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new
