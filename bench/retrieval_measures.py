"""Measures of ranked lines, plain rankings to compare with, and the bootstrap of their differences."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from chat.rag.words import words

Numbers = NDArray[np.float64]
DEPTHS = (5, 10, 25)
NAMES = (*(f"hit@{depth}" for depth in DEPTHS), "spans@25", "nDCG@10")
K1, B = 1.2, 0.75  # of BM25
RANK_CONSTANT = 60  # of reciprocal rank fusion
SAMPLES = 5_000


class Bm25:
    """BM25 over texts, with the words of the project and nothing else: no stop words, no stems."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.postings: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = np.zeros(len(texts))
        for number, text in enumerate(texts):
            counts = Counter(words(text))
            lengths[number] = counts.total()
            for word, n in counts.items():
                self.postings[word].append((number, n))
        self.penalty = K1 * (1 - B + B * lengths / max(1.0, lengths.mean()))

    def scores(self, question: str) -> Numbers:
        scores = np.zeros(len(self.penalty))
        for word in set(words(question)) & self.postings.keys():
            rows, counts = np.array(self.postings[word]).T
            rarity = np.log1p((len(scores) - len(rows) + 0.5) / (len(rows) + 0.5))
            scores[rows] += rarity * counts * (K1 + 1) / (counts + self.penalty[rows])
        return scores


def ranking(scores: Numbers) -> list[int]:
    """Return all lines, best first; of equal ones the earlier first."""
    return [int(line) for line in np.argsort(-scores, kind="stable")]


def joined(*rankings: Sequence[int]) -> list[int]:
    """Join rankings of all lines by reciprocal ranks."""
    points = np.zeros(len(rankings[0]))
    for lines in rankings:
        points[np.array(lines)] += 1 / (RANK_CONSTANT + np.arange(1, len(lines) + 1))
    return ranking(points)


def measures(lines: Sequence[int], answers: Collection[int]) -> list[float]:
    """Return the values of NAMES for a ranking, of which lines may be missing."""
    right = np.array([line in answers for line in lines[: max(DEPTHS)]] + [False] * max(DEPTHS))
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = discounts[: len(answers)].sum()
    hits = [float(right[:depth].any()) for depth in DEPTHS]
    return [*hits, right[:25].sum() / len(answers), float((right[:10] * discounts).sum() / ideal)]


def chance_of_a_tie_or_better(ours: Numbers, theirs: Numbers, *, seed: int = 1) -> Numbers:
    """Return for each measure the share of bootstrap samples in which ``ours`` is at least as good.

    Both have a row per question. The samples draw questions with replacement, the same for both.
    """
    rng = np.random.default_rng(seed)
    difference = ours - theirs
    samples = rng.integers(0, len(difference), (SAMPLES, len(difference)))
    shares: Numbers = (difference[samples].mean(axis=1) >= -1e-12).mean(axis=0)
    return shares
