"""What a batch of so many rows costs on this machine, measured at start, and which batch gives most for its time.

On a CPU the cost goes in steps (kernels work on tiles of rows): two rows may cost as one, or more than twice as much.
Knows numbers only.
"""

import math
from collections.abc import Sequence

import numpy as np

ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
N_ROUNDS = 4
# Another batch than one row for each answer has to promise this much more: a measurement may be wrong by as much.
WORTH_IT = 1.05
SPLIT_WORTH_IT = 1.1  # for some answers to wait for others as well


class BatchCost:
    """Measured in the first idle moments, one batch at a time, then fixed: a lone answer is cut alike from run to run.

    Usable after the first round. The least of the rounds counts: what else a machine does while a service
    starts only adds (two rows once seen at 136, 98 and 33 ms, one at 120, 39 and 28), and for the process's life two
    answers would take turns by it.
    """

    def __init__(self, max_rows: int) -> None:
        self._sizes = [n for n in ROWS if n <= max_rows]
        self._wanted = self._sizes * N_ROUNDS
        self._least: dict[int, float] = {}
        self.ms: list[float] = []  # by number of rows, from 0; empty until each was measured once

    @property
    def next_wanted(self) -> int | None:
        """How many rows to measure next; ``None`` when nothing is left to do."""
        return self._wanted[0] if self._wanted else None

    def observe(self, step_ms: float) -> None:
        """The batch that was wanted next took so long."""
        n_rows = self._wanted.pop(0)
        self._least[n_rows] = min(step_ms, self._least.get(n_rows, math.inf))
        if len(self._least) == len(self._sizes):
            costs = [self._least[n] for n in self._sizes]
            self.ms = [0.0, *np.interp(range(1, self._sizes[-1] + 1), self._sizes, costs).tolist()]

    def best_batch(
        self, odds: Sequence[Sequence[float]], *, spare_ms: float | None = None, n_reserved: int = 0
    ) -> list[int | None]:
        """For each answer the number of guessed tokens beside its own row, ``None`` for one that sits this batch out.

        ``odds[i][j]``: the probability that the first j + 1 guessed tokens of answer i are all right. Answers sit out
        from the end of the list. With others waiting for the end of the step none sits out, and guesses may cost no
        more than ``spare_ms``. ``n_reserved`` rows are for others in the same batch.
        """
        n_answers = len(odds)
        if not 0 < n_answers < len(self.ms):
            return [0] * n_answers
        most_ms = math.inf if spare_ms is None else self.ms[n_answers] + spare_ms
        best, n_best, best_guesses = n_answers / self.ms[n_answers] * WORTH_IT, n_answers, 0
        for n in range(n_answers, (1 if spare_ms is None else n_answers) - 1, -1):
            gains = sorted((each for one in odds[:n] for each in one), reverse=True)[
                : max(0, len(self.ms) - 1 - n - n_reserved)
            ]
            expected = float(n)
            for n_guesses, gain in enumerate([0.0, *gains]):
                expected += gain
                step_ms = self.ms[n + n_guesses]
                rate = expected / step_ms if step_ms <= most_ms else 0.0
                if rate > best * (1.0 if n == n_best else SPLIT_WORTH_IT / WORTH_IT):
                    best, n_best, best_guesses = rate, n, n_guesses
        return [*_shared_out(odds[:n_best], best_guesses), *[None] * (n_answers - n_best)]


def _shared_out(odds: Sequence[Sequence[float]], n_guesses: int) -> list[int]:
    """The likeliest guesses of all."""
    ranked = sorted((-gain, index) for index, one in enumerate(odds) for gain in one)
    shares = [0] * len(odds)
    for _, index in ranked[:n_guesses]:
        shares[index] += 1
    return shares
