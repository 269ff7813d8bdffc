"""How likely the model itself held a token, and what else: natural logarithms over the whole vocabulary.

Before bias, penalties, temperature and filters, as OpenAI and llama-server (without ``post_sampling_probs``) define it.
"""

import msgspec
import numpy as np

from inference.engine.backends.backend import Logits

MAX_ALTERNATIVES = 20


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Of the token that was drawn, and of the likeliest ones as (token, logprob), best first; ties by token id."""

    logprob: float
    top: list[tuple[int, float]]


def token_logprobs(logits: Logits, token: int, n_alternatives: int) -> TokenLogprobs:
    """From raw ``logits`` (one per token of the vocabulary, at least one finite), which are left as they are."""
    # Relative to the largest, so that no exponential overflows; the sum of 262,144 float32 needs more digits than one.
    peak = logits.max()
    log_total = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    n_top = min(n_alternatives, len(logits))
    # By value everything that may be among the best, then in order: a partition alone takes any of equal ones.
    border = np.partition(logits, -n_top)[-n_top]
    ids = np.flatnonzero(logits >= border)
    best = ids[np.argsort(-logits[ids], kind="stable")][:n_top]
    top = [(int(each), float(logits[each]) - log_total) for each in best]
    return TokenLogprobs(float(logits[token]) - log_total, top)
