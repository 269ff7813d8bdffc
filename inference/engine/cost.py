"""What a step costs on this machine, learned from the steps themselves, and how many prompt tokens fit its budget.

Knows numbers only.
"""

import numpy as np

MIN_SLICE = 32  # fewer tokens are hardly cheaper, and a prompt must get on
# Whenever no answer waits for the step's end: a prompt that is alone is cut alike
# in every run, since other slices are other matrix kernels, slightly other numbers, and for one seed another text.
# Measured per token (270M, 2 cores) in slices of 64, 128, 256, 512: 2.05, 2.0, 1.77, 1.9 ms.
FIXED_SLICE = 256
FIRST_SLICE = 64  # beside an answer, before anything was measured
WEIGHT = 0.3  # of the newest measurement


class StepCost:
    """Moving averages: ms of a step with n answers in it, and ms of one more prompt token."""

    def __init__(self, budget_ms: float) -> None:
        self._budget_ms = budget_ms
        self._decode_ms: dict[int, float] = {}
        self._prefill_token_ms: float | None = None

    @property
    def spare_ms(self) -> float:
        """What answers may cost beyond one token each while a prompt waits: hardly noticed beside its slices."""
        return self._budget_ms / 20

    def n_prefill_tokens(self, n_decode: int) -> int:
        """Prompt tokens that fit a step beside ``n_decode`` answers; never none."""
        if n_decode == 0:
            return FIXED_SLICE
        if self._prefill_token_ms is None:
            return FIRST_SLICE
        fitting = (self._budget_ms - self.decode_ms(n_decode)) / self._prefill_token_ms
        # Whole multiples: matrix kernels like them, and equal prompts are more often cut alike.
        return max(MIN_SLICE, int(fitting) // MIN_SLICE * MIN_SLICE)

    def decode_ms(self, n_decode: int) -> float:
        """Of a step with that many answers; between and beside measured numbers by the nearest ones."""
        if n_decode == 0 or not self._decode_ms:
            return 0.0
        known = sorted(self._decode_ms)
        return float(np.interp(n_decode, known, [self._decode_ms[n] for n in known]))

    def observe(self, n_decode: int, n_prefill: int, step_ms: float) -> None:
        if n_prefill == 0:
            self._decode_ms[n_decode] = _mixed(self._decode_ms.get(n_decode), step_ms)
        elif n_prefill >= MIN_SLICE:
            per_token = max(step_ms - self.decode_ms(n_decode), step_ms / 10) / n_prefill
            self._prefill_token_ms = _mixed(self._prefill_token_ms, max(per_token, 1e-6))


def _mixed(old: float | None, new: float) -> float:
    return new if not old else (1 - WEIGHT) * old + WEIGHT * new
