"""Comparing greedy answers that were computed in other batches, or at other places of the memory.

There the kernels round differently (seen: up to 0.8 a logit), so that two tokens of nearly equal logits may change
places, and everything after that is another text. What is asserted: equal up to the first difference, and there
the model itself, asked again, holds both tokens within ``MAX_MARGIN`` of its best.
"""

from collections.abc import Sequence as Many

import numpy as np

from inference.engine.backends.backend import Backend, Slice
from inference.engine.grammar.matcher import GrammarMatcher

# Each of two logits may be rounded by 0.8 in either run.
MAX_MARGIN = 1.6


def assert_same_up_to_rounding(
    backend: Backend, prompt: Many[int], got: Many[int], expected: Many[int], *, matcher: GrammarMatcher | None = None
) -> int:
    """``got`` and ``expected`` follow ``prompt``; returns how many tokens are equal. Uses an empty slot 0.

    ``matcher``: the grammar of both, before their first token.
    """
    assert prompt, "without what they follow nothing can be asked again"
    assert matcher or len(got) == len(expected), f"{len(got)} tokens, {len(expected)} expected"
    n_equal = next((i for i, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]), len(got))
    if n_equal == len(got):
        return n_equal
    known = [*prompt, *expected[:n_equal]]
    logits = None
    for start in range(0, len(known), 64):
        part = known[start : start + 64]
        logits = backend.decode([Slice(0, start, part, 1)])
    backend.remove(0)
    assert logits is not None
    if matcher is None:
        logits[0][list(backend.vocabulary.eog_tokens)] = -np.inf  # the answers compared here go on behind an end
    else:
        for token in expected[:n_equal]:
            matcher.consume(token)
        matcher.restrict(logits[0])
    best = float(logits[0].max())
    margins = [best - float(logits[0][token]) for token in (got[n_equal], expected[n_equal])]
    assert max(margins) < MAX_MARGIN, f"token {n_equal + 1} differs, and is no near-tie: {margins} below the best"
    return n_equal
