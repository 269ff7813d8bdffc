"""The real model with its cells where they do not matter: for tests that compare to the last bit.

llama.cpp's kernels sum over cells in lanes of 16, so that a sequence is bit-identical only where each of its
positions keeps its place modulo 16. The service's pool, which all slots share, gives no such promise. Here every slot
has cells of its own, position p in cell p, and slices are decoded one by one, so that no numbers depend on who else
is in a batch. Loop, scheduler, cache, accounting and states are the service's, unchanged. The sliding window is made
small (llama.cpp takes another value for the file's own), so that short prompts leave it.
"""

from collections.abc import Sequence as Many
from unittest.mock import patch

import numpy as np

from inference.engine.backends import llama_backend
from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.backend import Logits, Slice
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig

WINDOW = 64
CELLS_PER_SLOT = 256  # more are not needed, and a sequence that is shorter keeps its windowed cells


class AlignedBackend(LlamaBackend):
    """``n_slots`` for the caller, and one more to decode into when a copy has to be carried out."""

    def __init__(self, config: EngineConfig, *, n_slots: int) -> None:
        def context_params(*given: object) -> lib.llama_context_params:
            params: lib.llama_context_params = original_context(*given)  # type: ignore[arg-type]
            params.kv_unified = False
            params.n_ctx = CELLS_PER_SLOT * (n_slots + 1)
            return params

        def model_params() -> lib.llama_model_params:
            params: lib.llama_model_params = original_model()
            params.kv_overrides = overrides
            return params

        original_context, original_model = llama_backend.context_params, lib.llama_model_default_params
        overrides = (lib.llama_model_kv_override * 2)()  # the empty second one ends the list
        overrides[0].key = b"gemma3.attention.sliding_window"
        overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_INT
        overrides[0].value.val_i64 = WINDOW
        with (
            patch.object(llama_backend, "context_params", context_params),
            patch.object(lib, "llama_model_default_params", model_params),
        ):
            super().__init__(config, n_slots=n_slots + 1)
        self.n_slots = n_slots

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        rows: list[Logits] = []
        for each in slices:
            found = super().decode([each])
            assert found is not None
            rows += [np.array(row) for row in found]
        return rows

    def copy(self, source: int, target: int, length: int) -> None:
        """Between cells of their own only whole sequences are copied, and that with the next decode."""
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        super().decode([Slice(self.n_slots, 0, [self.vocabulary.bos or 0], False)])
        self.remove(self.n_slots)
        self.trim(target, length)
