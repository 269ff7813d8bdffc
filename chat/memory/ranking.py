"""Joins rankings: reciprocal ranks of several lists, each with its weight; then drops what was said already.

Knows rows of a snapshot and their scores, no texts but those it compares.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from chat.memory.snapshot import Mask, Rows, Scores
from chat.memory.words import content_words

# Of "Reciprocal Rank Fusion" (Cormack, Clarke, Büttcher 2009): how little the first ranks tower above the next ones.
RANK_CONSTANT = 60


@dataclass(frozen=True)
class Ranked:
    """Rows from best to worst."""

    rows: Rows
    weight: float


def best(rows: Rows, scores: Scores, depth: int, *, weight: float, among: Mask | None = None) -> Ranked:
    """The best ``depth`` rows by score, of those in the mask; of equal ones the later row comes first."""
    if among is not None:
        rows, scores = rows[among[rows]], scores[among[rows]]
    if len(rows) > depth:
        chosen = np.argpartition(-scores, depth - 1)[:depth]
        rows, scores = rows[chosen], scores[chosen]
    return Ranked(rows[np.lexsort((-rows, -scores))], weight)


def join(lists: Iterable[Ranked]) -> dict[int, float]:
    """Each row's sum of weighted reciprocal ranks, as a share of what the first of every list would have."""
    sums: defaultdict[int, float] = defaultdict(float)
    top = 0.0
    for ranked in lists:
        top += ranked.weight / (RANK_CONSTANT + 1)
        for rank, row in enumerate(ranked.rows.tolist(), start=1):
            sums[row] += ranked.weight / (RANK_CONSTANT + rank)
    return {row: value / top for row, value in sums.items()}


class Sayings:
    """Recognises what was said already: the same words that say something, by the same speaker."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, frozenset[str]]] = set()

    def is_new(self, speaker: str, text: str) -> bool:
        key = (speaker, frozenset(content_words(text)))
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new


def descending(scores: dict[int, float]) -> Iterator[tuple[int, float]]:
    yield from sorted(scores.items(), key=lambda item: (-item[1], -item[0]))
