"""Sampling of the next token: llama.cpp's samplers over the few candidates that can be drawn.

A chain over all 262,144 tokens of the vocabulary costs up to 17 ms; cut to the candidates first, 0.1 to 0.2. A draw
depends on the logits, the tokens before and (seed, index) only, so that another runner continues with the same draws.
"""

import ctypes
import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.backend import Logits
from inference.engine.errors import BadLogitsError
from inference.engine.params import SamplingParams
from inference.engine.sampling.logit_groups import N_GROUPS, group_maxima, ids_at_least

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

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """Array of candidates for llama.cpp's samplers; one per loop, since sequences are sampled one after the other."""

    def __init__(self, n_tokens: int) -> None:
        self._rows = np.zeros(n_tokens, dtype=_CANDIDATE)
        self._data: Any = self._rows.ctypes.data_as(lib.llama_token_data_p)
        self.array = lib.llama_token_data_array()

    def fill(self, ids: NDArray[np.intp], logits: Logits) -> None:
        """Replace the candidates by tokens ``ids``, shape (n,), of ``logits``, shape (n_tokens,)."""
        rows = self._rows[: len(ids)]
        rows["id"] = ids
        rows["logit"] = logits[ids]
        # Samplers change pointer and size, so both are set each time.
        self.array.data = self._data
        self.array.size = len(ids)
        self.array.selected = -1
        self.array.sorted = False

    @property
    def selected(self) -> int:
        return int(self.array.data[self.array.selected].id)


class Sampler:
    """Sampler of one sequence; owns its native chain.

    Any finite parameter is valid: a temperature below ``GREEDY_BELOW`` is greedy, and penalties and biases are bounded
    so that no logit leaves float32.
    """

    def __init__(self, params: SamplingParams, candidates: Candidates, forbidden: Iterable[int] = ()) -> None:
        self._params = params = bounded(params)
        self._candidates = candidates
        self._margin = np.float32(margin(params))
        self._penalizes = params.repeat_last_n != 0 and (
            params.repeat_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
        )
        bias = {token: -math.inf if value is None else value for token, value in params.logit_bias.items()}
        bias |= dict.fromkeys(forbidden, -math.inf)
        self._bias_ids = np.fromiter(bias, dtype=np.intp, count=len(bias))
        self._bias = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        self._chain = None if params.temperature < GREEDY_BELOW else _filters(params)

    def __del__(self) -> None:
        if getattr(self, "_chain", None) is not None:
            lib.llama_sampler_free(self._chain)

    def sample(self, logits: Logits, history: Sequence[int], index: int) -> int:
        """Return the token that follows ``history``; changes ``logits``.

        ``logits`` has shape (n_tokens,); ``index`` counts the tokens of the answer from 1. Raises ``BadLogitsError``
        when no finite logit is left.
        """
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._penalizes:
            self._penalize(logits, history)
        if self._chain is None:
            best = int(logits.argmax())  # a NaN counts as the largest
            _check_peak(float(logits[best]), len(logits))
            return best
        maxima = group_maxima(logits)
        threshold = self._threshold(maxima, len(logits))
        self._candidates.fill(ids_at_least(threshold, logits, maxima), logits)
        lib.llama_sampler_apply(self._chain, ctypes.byref(self._candidates.array))
        dist = lib.llama_sampler_init_dist(draw_seed(self._params.seed, index))
        lib.llama_sampler_apply(dist, ctypes.byref(self._candidates.array))
        lib.llama_sampler_free(dist)
        return self._candidates.selected

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

    def _penalize(self, logits: Logits, history: Sequence[int]) -> None:
        """Apply llama.cpp's penalties to the tokens of ``history``, before the cut: a penalty may raise a logit."""
        params = self._params
        recent = history if params.repeat_last_n < 0 else history[-params.repeat_last_n :]
        ids, counts = np.unique(np.asarray(recent, dtype=np.intp), return_counts=True)
        values = logits[ids]
        repeat = np.float32(params.repeat_penalty)
        values = np.where(values <= 0, values * repeat, values / repeat)
        values -= counts.astype(np.float32) * np.float32(params.frequency_penalty)
        logits[ids] = values - np.float32(params.presence_penalty)


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


def _filters(params: SamplingParams) -> int:
    """Return a native chain in llama.cpp's default order: top-k, top-p, min-p, temperature."""
    options = lib.llama_sampler_chain_default_params()
    options.no_perf = True
    chain: int = lib.llama_sampler_chain_init(options)
    if params.top_k > 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_min_p(params.min_p, 1))
    lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_temp(params.temperature))
    return chain
