"""Penalties for repeated tokens, as llama.cpp computes them, on the logits of the whole vocabulary."""

from collections.abc import Sequence

import numpy as np

from inference.engine.backends.backend import Logits
from inference.engine.params import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    """Return whether ``penalize`` would change any logit."""
    return params.repeat_last_n != 0 and (
        params.repeat_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    )


def penalize(logits: Logits, history: Sequence[int], params: SamplingParams) -> None:
    """Apply llama.cpp's penalties to the tokens of ``history``, before the cut: a penalty may raise a logit."""
    recent = history if params.repeat_last_n < 0 else history[-params.repeat_last_n :]
    ids, counts = np.unique(np.asarray(recent, dtype=np.intp), return_counts=True)
    values = logits[ids]
    repeat = np.float32(params.repeat_penalty)
    values = np.where(values <= 0, values * repeat, values / repeat)
    values -= counts.astype(np.float32) * np.float32(params.frequency_penalty)
    logits[ids] = values - np.float32(params.presence_penalty)
