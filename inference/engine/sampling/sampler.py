"""Sampling of the next token: llama.cpp's samplers over the few candidates that can be drawn.

A chain over all 262,144 tokens of the vocabulary costs up to 17 ms; cut to the candidates first, 0.1 to 0.2. A draw
depends on the logits, the tokens before and (seed, index) only, so that another runner continues with the same draws.
"""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from inference.engine.backends.backend import Logits
from inference.engine.errors import BadLogitsError
from inference.engine.grammar.matcher import GrammarMatcher
from inference.engine.params import SamplingParams
from inference.engine.sampling.logit_groups import N_GROUPS, group_maxima, ids_at_least
from inference.engine.sampling.native_chain import Candidates, SamplerChain
from inference.engine.sampling.penalties import has_penalties, penalize

# Below the best logit by this much, a token has less than e^-20 of its probability: all 262,144 together 5e-4.
BASE_MARGIN = 20.0
# At a higher temperature without a filter, this many temperatures: all tokens below have 1e-6 together.
MARGIN_PER_TEMPERATURE = 26.0
TOP_P_THAT_CUTS = 0.999

MASK_64 = (1 << 64) - 1
# llama.cpp replaces this seed by a random one.
RANDOM_SEED = 0xFFFFFFFF
# Logits divided by less than 1e-36 leave float32; below this a draw is as good as greedy (vLLM has the same bound).
GREEDY_BELOW = 1e-5
MAX_TOP_K = (1 << 31) - 1  # int32 in llama.cpp
# Parameters beyond this act like this: with it, logits of up to 1e6 tokens stay in float32 at any temperature.
MAX_PARAMETER = 1e20


class Sampler:
    """Sampler of one sequence.

    Any finite parameter is valid: a temperature below ``GREEDY_BELOW`` is greedy, and penalties and biases are bounded
    so that no logit leaves float32.
    """

    def __init__(self, params: SamplingParams, candidates: Candidates, forbidden: Iterable[int] = ()) -> None:
        self._params = params = bounded(params)
        self._candidates = candidates
        self._margin = np.float32(margin(params))
        self._penalizes = has_penalties(params)
        bias = {token: -math.inf if value is None else value for token, value in params.logit_bias.items()}
        bias |= dict.fromkeys(forbidden, -math.inf)
        self._bias_ids = np.fromiter(bias, dtype=np.intp, count=len(bias))
        self._bias = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        self._chain = None if params.temperature < GREEDY_BELOW else SamplerChain(params)

    def sample(self, logits: Logits, history: Sequence[int], index: int, matcher: GrammarMatcher | None = None) -> int:
        """Return the token that follows ``history``, one that ``matcher`` allows; changes ``logits``.

        ``logits`` has shape (n_tokens,); ``index`` counts the tokens of the answer from 1. Raises ``SequenceError``
        when no finite logit is left.
        """
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._penalizes:
            penalize(logits, history, self._params, n_answer=index - 1)
        if matcher is not None:
            matcher.restrict(logits)
        if self._chain is None:
            best = int(logits.argmax())  # a NaN counts as the largest
            _check_peak(float(logits[best]), len(logits))
            return best
        maxima = group_maxima(logits)
        threshold = self._threshold(maxima, len(logits))
        self._candidates.fill(ids_at_least(threshold, logits, maxima), logits)
        return self._chain.draw(self._candidates, draw_seed(self._params.seed, index))

    def _threshold(self, maxima: Logits, n_logits: int) -> np.float32:
        """Return a bound that all tokens that can be drawn reach, and few others.

        The k-th largest of the maxima of any groups is at most the k-th largest of all, at a quarter of the time.
        """
        cuts_at_k = 0 < self._params.top_k <= N_GROUPS
        top = np.partition(maxima, -self._params.top_k)[-self._params.top_k :] if cuts_at_k else maxima
        peak: np.float32 = top.max()  # a NaN wins, and sorts last
        _check_peak(float(peak), n_logits)
        threshold: np.float32 = peak - self._margin
        return max(threshold, top[0]) if cuts_at_k else threshold


def _check_peak(peak: float, n_logits: int) -> None:
    if not math.isfinite(peak):
        raise BadLogitsError(f"the best of {n_logits} logits is {peak}")


def bounded(params: SamplingParams) -> SamplingParams:
    """Return the parameters with penalties and biases within ``MAX_PARAMETER``; forbidden tokens stay forbidden."""
    bias = {token: value and _clamp(value) for token, value in params.logit_bias.items()}
    return msgspec.structs.replace(
        params,
        repeat_penalty=max(1 / MAX_PARAMETER, _clamp(params.repeat_penalty)),
        presence_penalty=_clamp(params.presence_penalty),
        frequency_penalty=_clamp(params.frequency_penalty),
        temperature=_clamp(params.temperature),
        top_k=min(params.top_k, MAX_TOP_K),
        logit_bias=bias,
    )


def _clamp(value: float) -> float:
    return min(max(value, -MAX_PARAMETER), MAX_PARAMETER)


def margin(params: SamplingParams) -> float:
    """Return the distance below the best logit beyond which a token is practically never drawn."""
    if params.min_p > 0:
        return max(BASE_MARGIN, 1.0 - math.log(params.min_p))
    if params.top_p <= TOP_P_THAT_CUTS:
        return BASE_MARGIN
    return max(BASE_MARGIN, MARGIN_PER_TEMPERATURE * params.temperature)


def draw_seed(seed: int, index: int) -> int:
    """Return the seed of one draw from (seed, index) alone (the finaliser of splitmix64, Steele et al. 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03) & MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK_64
    mixed = (z ^ (z >> 31)) & 0xFFFFFFFF
    return 0 if mixed == RANDOM_SEED else mixed
