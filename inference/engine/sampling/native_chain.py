"""llama.cpp's samplers over an array of candidates. Owns the native memory; knows no vocabulary and no history."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.backend import Logits
from inference.engine.params import SamplingParams

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Candidates:
    """Array of candidates for llama.cpp's samplers; one per loop, since sequences are sampled one after the other."""

    def __init__(self, n_tokens: int) -> None:
        self._rows = np.zeros(n_tokens, dtype=CANDIDATE)
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


class SamplerChain:
    """Filters of one sequence in llama.cpp's default order: top-k, top-p, min-p, temperature."""

    def __init__(self, params: SamplingParams) -> None:
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
        self._chain = chain

    def __del__(self) -> None:
        if hasattr(self, "_chain"):
            lib.llama_sampler_free(self._chain)

    def draw(self, candidates: Candidates, seed: int) -> int:
        """Filter the candidates and return the token drawn with ``seed``."""
        lib.llama_sampler_apply(self._chain, ctypes.byref(candidates.array))
        dist = lib.llama_sampler_init_dist(seed)
        lib.llama_sampler_apply(dist, ctypes.byref(candidates.array))
        lib.llama_sampler_free(dist)
        return candidates.selected
