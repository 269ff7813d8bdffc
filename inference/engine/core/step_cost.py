"""Cost model of steps, learned from measured ones, and the number of prompt tokens that fit a step's budget.

Knows numbers only.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

MIN_SLICE = 32  # fewer tokens are hardly cheaper, and a prompt must get on
# Used while no answer waits for the step's end. A lone prompt is cut alike in every run: other slices use other matrix
# kernels, whose results differ in the last bits, and the text for one seed would change.
FIXED_SLICE = 256
FIRST_SLICE = 64  # beside an answer, before the first measurement
# Matrix kernels fill tiles: measured per token (270M, 2 cores) in slices of 64, 96, 128, 192, 256, 512: 2.82, 2.63,
# 2.09, 2.18, 2.05, 2.08 ms. So one cost per token misleads, and sizes in between are no better than the next below.
SIZES: tuple[int, ...] = (MIN_SLICE, 64, *range(128, 4097, 128))
NEAR = 1 / 8  # a slice that differs from a size by less is a measurement of that size
WEIGHT = 0.3  # of the newest measurement
DRIFT = 0.2  # of its relative change, for other sizes: all cost more when more cells are attended to


class StepCost:
    """Moving averages: ms of a step with n answers in it, and ms of a slice by its size."""

    def __init__(self, budget_ms: float) -> None:
        self._budget_ms = budget_ms
        self._decode_ms: dict[int, float] = {}
        self._slice_ms: dict[int, float] = {}

    def spare_ms(self, n_pending: Sequence[int]) -> float | None:
        """Return the ms that drafts may cost in a step while prompts with ``n_pending`` tokens wait; None: no bound.

        Small beside the cost of a long prompt's slices, and nothing where a first token is one slice away. 16 short
        prompts at once (270M, 2 cores, four rounds in turn): median first token 3,124 ms with drafts between the
        slices, 2,893 without.
        """
        if not n_pending:
            return None
        return 0.0 if min(n_pending) <= FIXED_SLICE else self._budget_ms / 20

    def n_prefill_tokens(self, n_decode: int) -> int:
        """Return the prompt tokens that fit a step beside ``n_decode`` answers; at least ``MIN_SLICE``."""
        if n_decode == 0:
            return FIXED_SLICE
        if not self._slice_ms:
            return FIRST_SLICE
        left_ms = self._budget_ms - self.decode_ms(n_decode)
        n_fitting = bisect_right(SIZES, left_ms, key=self.slice_ms)
        return SIZES[max(0, n_fitting - 1)]

    def decode_ms(self, n_decode: int) -> float:
        """Return the ms of a step with that many answers, interpolated; 0 before the first measurement."""
        if n_decode == 0 or not self._decode_ms:
            return 0.0
        sizes = sorted(self._decode_ms)
        return float(np.interp(n_decode, sizes, [self._decode_ms[n] for n in sizes]))

    def expected_ms(self, n_decode: int, n_prefill: int) -> float | None:
        """Return the ms of a step with so many rows of answers and prompt tokens; None while none was measured."""
        if (n_decode and not self._decode_ms) or (n_prefill and not self._slice_ms):
            return None
        return self.decode_ms(n_decode) + (self.slice_ms(n_prefill) if n_prefill else 0.0)

    def prefill_ms(self, n_tokens: int, n_decode: int) -> float:
        """Return the ms of a prompt with a decode step after each slice; 0 before a slice was measured."""
        if not self._slice_ms:
            return 0.0
        size = self.n_prefill_tokens(n_decode)
        n_slices = n_tokens / size
        return n_slices * self.slice_ms(size) + math.ceil(n_slices) * self.decode_ms(n_decode)

    def slice_ms(self, n_tokens: int) -> float:
        """Return the ms of a slice of one of ``SIZES``, at least those of any smaller one; needs one measurement.

        An unmeasured size is assumed to cost per token as much as the next larger one, which is an underestimate: so it
        gets tried and measured.
        """
        nearest = min((size for size in self._slice_ms if size >= n_tokens), default=max(self._slice_ms))
        smaller = [ms for size, ms in self._slice_ms.items() if size < n_tokens]
        return max(self._slice_ms[nearest] * (n_tokens / nearest), *smaller, 0.0)

    def observe(self, n_decode: int, n_prefill: int, step_ms: float) -> None:
        """Learn from a step with so many rows of answers and prompt tokens."""
        if n_prefill == 0:
            self._decode_ms[n_decode] = _moving_average(self._decode_ms.get(n_decode), step_ms)
            return
        size = min(SIZES, key=lambda candidate: abs(candidate - n_prefill))
        if abs(size - n_prefill) > size * NEAR:
            return
        slice_ms = max(step_ms - self.decode_ms(n_decode), step_ms / 10, 1e-6) * size / n_prefill
        previous_ms = self._slice_ms.get(size)
        if self._slice_ms:
            drift = 1 + DRIFT * (slice_ms / self.slice_ms(size) - 1)
            self._slice_ms = {other: other_ms * drift for other, other_ms in self._slice_ms.items()}
        self._slice_ms[size] = _moving_average(previous_ms, slice_ms)


def _moving_average(old: float | None, new: float) -> float:
    return new if not old else (1 - WEIGHT) * old + WEIGHT * new
