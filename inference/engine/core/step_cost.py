"""What a step costs on this machine, learned from the steps themselves, and how many prompt tokens fit its budget.

Knows numbers only.
"""

import math
from bisect import bisect_right

import numpy as np

MIN_SLICE = 32  # fewer tokens are hardly cheaper, and a prompt must get on
# Whenever no answer waits for the step's end: a prompt that is alone is cut alike
# in every run, since other slices are other matrix kernels, slightly other numbers, and for one seed another text.
FIXED_SLICE = 256
FIRST_SLICE = 64  # beside an answer, before anything was measured
# Matrix kernels fill tiles: measured per token (270M, 2 cores) in slices of 64, 96, 128, 192, 256, 512: 2.82, 2.63,
# 2.09, 2.18, 2.05, 2.08 ms. So one price per token misleads, and what lies between these sizes is no better than below.
SIZES: tuple[int, ...] = (MIN_SLICE, 64, *range(128, 4097, 128))
NEAR = 1 / 8  # a slice that differs by less from a size tells what that size costs
WEIGHT = 0.3  # of the newest measurement
DRIFT = 0.2  # of what it says about other sizes: all are dearer where more cells are attended to


class StepCost:
    """Moving averages: ms of a step with n answers in it, and ms of a slice by its size."""

    def __init__(self, budget_ms: float) -> None:
        self._budget_ms = budget_ms
        self._decode_ms: dict[int, float] = {}
        self._slice_ms: dict[int, float] = {}

    @property
    def spare_ms(self) -> float:
        """What answers may cost beyond one token each while a long prompt waits: hardly noticed beside its slices."""
        return self._budget_ms / 20

    def n_prefill_tokens(self, n_decode: int) -> int:
        """Prompt tokens that fit a step beside ``n_decode`` answers; never none."""
        if n_decode == 0:
            return FIXED_SLICE
        if not self._slice_ms:
            return FIRST_SLICE
        left_ms = self._budget_ms - self.decode_ms(n_decode)
        n_fitting = bisect_right(SIZES, left_ms, key=self.slice_ms)
        return SIZES[max(0, n_fitting - 1)]

    def decode_ms(self, n_decode: int) -> float:
        """Of a step with that many answers; between and beside measured numbers by the nearest ones."""
        if n_decode == 0 or not self._decode_ms:
            return 0.0
        known = sorted(self._decode_ms)
        return float(np.interp(n_decode, known, [self._decode_ms[n] for n in known]))

    def reading_ms(self, n_tokens: int, n_decode: int) -> float:
        """Of so many prompt tokens, with a step of so many answers after each slice; 0 before a slice was measured."""
        if not self._slice_ms:
            return 0.0
        size = self.n_prefill_tokens(n_decode)
        n_slices = n_tokens / size
        return n_slices * self.slice_ms(size) + math.ceil(n_slices) * self.decode_ms(n_decode)

    def slice_ms(self, n_tokens: int) -> float:
        """Of a slice of one of the sizes, once one was measured; never less than a smaller one.

        One that was not seen yet is taken to cost by the token what the next larger does, which is little: so it is
        tried, and seen.
        """
        nearest = min((size for size in self._slice_ms if size >= n_tokens), default=max(self._slice_ms))
        no_less = [ms for size, ms in self._slice_ms.items() if size < n_tokens]
        return max(self._slice_ms[nearest] * (n_tokens / nearest), *no_less, 0.0)

    def observe(self, n_decode: int, n_prefill: int, step_ms: float) -> None:
        if n_prefill == 0:
            self._decode_ms[n_decode] = _mixed(self._decode_ms.get(n_decode), step_ms)
        else:
            self._observe_slice(n_prefill, max(step_ms - self.decode_ms(n_decode), step_ms / 10, 1e-6))

    def _observe_slice(self, n_tokens: int, ms: float) -> None:
        size = min(SIZES, key=lambda each: abs(each - n_tokens))
        if abs(size - n_tokens) > size * NEAR:
            return
        ms *= size / n_tokens
        known = self._slice_ms.get(size)
        if self._slice_ms:
            drift = 1 + DRIFT * (ms / self.slice_ms(size) - 1)
            self._slice_ms = {each: each_ms * drift for each, each_ms in self._slice_ms.items()}
        self._slice_ms[size] = _mixed(known, ms)


def _mixed(old: float | None, new: float) -> float:
    return new if not old else (1 - WEIGHT) * old + WEIGHT * new
