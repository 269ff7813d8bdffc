"""Log-probabilities of a token and its alternatives: natural logarithms over the whole vocabulary.

Before bias, penalties, temperature and filters, as OpenAI and llama-server (without ``post_sampling_probs``) define it.
"""

import numpy as np

from inference.engine.backends.backend import Logits
from inference.engine.sampling.logprob_records import TokenLogprobs


def token_logprobs(logits: Logits, token: int, n_alternatives: int) -> TokenLogprobs:
    """Return log-probabilities from raw ``logits``, shape (n_tokens,), at least one of them finite; changes nothing."""
    # Relative to the largest, so that no exponential overflows; a sum of 262,144 float32 needs float64.
    peak = logits.max()
    log_total = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    n_top = min(n_alternatives, len(logits))
    # All tokens that reach the n-th best value, then sorted: a partition alone picks arbitrarily among equal ones.
    border = np.partition(logits, -n_top)[-n_top]
    ids = np.flatnonzero(logits >= border)
    best = ids[np.argsort(-logits[ids], kind="stable")][:n_top]
    top = [(int(token_id), float(logits[token_id]) - log_total) for token_id in best]
    return TokenLogprobs(float(logits[token]) - log_total, top)
