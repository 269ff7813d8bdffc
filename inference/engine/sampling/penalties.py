"""Penalties for repeated tokens, as llama.cpp computes them, on the logits of the whole vocabulary."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.engine.backends.backend import Logits
from inference.engine.params import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    """Return whether ``penalize`` would change any logit."""
    has_window = params.repeat_last_n != 0
    counts_occurrences = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    if counts_occurrences and (has_window or params.penalizes_answer):
        return True
    return has_window and params.repeat_penalty != 1.0


def penalize(logits: Logits, history: Sequence[int], params: SamplingParams, *, n_answer: int) -> None:
    """Apply llama.cpp's penalties to the tokens of ``history``, the last ``n_answer`` of which are the answer; before
    the cut, since a penalty may raise a logit."""
    n_recent = len(history) if params.repeat_last_n < 0 else params.repeat_last_n
    ids, counts = _occurrences(history, n_recent)
    values, repeat = logits[ids], np.float32(params.repeat_penalty)
    logits[ids] = np.where(values <= 0, values * repeat, values / repeat)
    if params.penalizes_answer:
        ids, counts = _occurrences(history, n_answer)
    logits[ids] -= counts.astype(np.float32) * np.float32(params.frequency_penalty)
    logits[ids] -= np.float32(params.presence_penalty)


def _occurrences(history: Sequence[int], n_last: int) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Return the different tokens among the last ones, and how often each occurs."""
    return np.unique(np.asarray(history[max(0, len(history) - n_last) :], dtype=np.intp), return_counts=True)
