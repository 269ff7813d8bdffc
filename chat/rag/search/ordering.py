"""Order of scored rows, and the removal of duplicate texts."""

import numpy as np
from numpy.typing import NDArray

from chat.rag.search.terms import FILLERS, words
from chat.rag.vectors.snapshot import Rows

Points = NDArray[np.float64]


def best(rows: Rows, scores: Points, n: int) -> Rows:
    """Return the best ``n`` rows, best first; of equal scores the later row is first."""
    if len(rows) > n:
        chosen = np.argpartition(-scores, n - 1)[:n]
        rows, scores = rows[chosen], scores[chosen]
    return rows[np.lexsort((-rows, -scores))]


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
