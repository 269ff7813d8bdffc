"""Search of large logits in one pass over all of them and a look into few: by the maxima of groups of token ids.

Knows no sampling parameters.
"""

import numpy as np
from numpy.typing import NDArray

from inference.engine.backends.backend import Logits

# Token ids that are equal modulo this form a group: the maxima of such groups take one sequential pass.
N_GROUPS = 8192
# With candidates in more groups than this, a second pass over all logits is cheaper: 65 us either way at 1,024.
MOST_GROUPS = 1024


def group_maxima(logits: Logits) -> Logits:
    """Return the maximum of every group, shape (N_GROUPS,); NaN counts as the largest, an empty group has -inf."""
    n_even = len(logits) - len(logits) % N_GROUPS
    maxima: Logits = np.maximum.reduce(logits[:n_even].reshape(-1, N_GROUPS), axis=0, initial=-np.inf)
    if n_even < len(logits):
        rest = logits[n_even:]
        np.maximum(maxima[: len(rest)], rest, out=maxima[: len(rest)])
    return maxima


def ids_at_least(threshold: np.float32, logits: Logits, maxima: Logits) -> NDArray[np.intp]:
    """Return the ids of all logits that reach ``threshold``, by reading only the groups that have one."""
    groups = (maxima >= threshold).nonzero()[0]
    if len(groups) > MOST_GROUPS:
        return (logits >= threshold).nonzero()[0]
    ids = (np.arange(0, len(logits), N_GROUPS)[:, None] + groups).ravel()
    if len(logits) % N_GROUPS:
        ids = ids[ids < len(logits)]
    candidates: NDArray[np.intp] = ids[logits[ids] >= threshold]
    return candidates
