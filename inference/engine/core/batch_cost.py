"""Cost of a batch by its rows, measured at start, and the batch that gives the most tokens per ms.

On a CPU the cost rises in steps (kernels work on tiles of rows): two rows may cost as much as one, or more than
twice as much. Knows numbers only.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
N_ROUNDS = 4
# Expected gain required over one row for each answer: measurements may be wrong by as much.
WORTH_IT = 1.05
SPLIT_WORTH_IT = 1.1  # the same for batches in which some answers wait


class BatchCost:
    """Measured while idle after the start, one batch at a time, then fixed, so that runs of one prompt are alike.

    Usable after the first round. The minimum of the rounds counts: other load during the start only adds (two rows once
    measured at 136, 98 and 33 ms, one at 120, 39 and 28), and a wrong value would be used until the process ends.
    """

    def __init__(self, max_rows: int) -> None:
        self._sizes = [n for n in ROWS if n <= max_rows]
        self._sizes_left = self._sizes * N_ROUNDS
        self._least: dict[int, float] = {}
        self.ms: list[float] = []  # by number of rows, from 0; empty until every size was measured once

    @property
    def next_size(self) -> int | None:
        """Number of rows to measure next; ``None`` when all are measured."""
        return self._sizes_left[0] if self._sizes_left else None

    def observe(self, step_ms: float) -> None:
        """Record the ms of a batch of ``next_size`` rows."""
        n_rows = self._sizes_left.pop(0)
        self._least[n_rows] = min(step_ms, self._least.get(n_rows, math.inf))
        if len(self._least) == len(self._sizes):
            costs = [self._least[n] for n in self._sizes]
            self.ms = [0.0, *np.interp(range(1, self._sizes[-1] + 1), self._sizes, costs).tolist()]

    def best_batch(
        self, odds: Sequence[Sequence[float]], *, spare_ms: float | None = None, n_reserved: int = 0
    ) -> list[int | None]:
        """Return the number of draft tokens for each answer, ``None`` for an answer left out of this batch.

        ``odds[i][j]`` is the probability that the first j + 1 draft tokens of answer i are all accepted. Answers are
        left out from the end of the list, and none is when ``spare_ms`` bounds the cost of drafts because prompts wait.
        ``n_reserved`` rows are needed for prompts in the same batch.
        """
        n_answers = len(odds)
        if not 0 < n_answers < len(self.ms):
            return [0] * n_answers
        most_ms = math.inf if spare_ms is None else self.ms[n_answers] + spare_ms
        best, n_best, best_drafts = n_answers / self.ms[n_answers] * WORTH_IT, n_answers, 0
        for n in range(n_answers, (1 if spare_ms is None else n_answers) - 1, -1):
            n_free = max(0, len(self.ms) - 1 - n - n_reserved)
            gains = sorted((gain for chances in odds[:n] for gain in chances), reverse=True)[:n_free]
            expected = float(n)
            for n_drafts, gain in enumerate([0.0, *gains]):
                expected += gain
                step_ms = self.ms[n + n_drafts]
                rate = expected / step_ms if step_ms <= most_ms else 0.0
                if rate > best * (1.0 if n == n_best else SPLIT_WORTH_IT / WORTH_IT):
                    best, n_best, best_drafts = rate, n, n_drafts
        likeliest = sorted((-gain, index) for index, chances in enumerate(odds[:n_best]) for gain in chances)
        shares = Counter(index for _, index in likeliest[:best_drafts])
        return [shares[index] if index < n_best else None for index in range(n_answers)]
