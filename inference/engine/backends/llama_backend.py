"""llama.cpp as a backend: one model, one context, one reused batch.

Knows positions and slots; batches are composed by the scheduler.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.backend import Logits, Slice
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.backends.llama import LlamaModel
from inference.engine.backends.llama_step_watch import watch_steps
from inference.engine.backends.llama_vocabulary import LlamaVocabulary
from inference.engine.backends.step_watch import StepWatch
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.config import Device, EngineConfig, FlashAttention, KvType
from inference.engine.errors import BackendError, StepAborted

# Names in llama.cpp's interface, which is loaded when a model is.
FLASH_ATTENTION = {
    FlashAttention.AUTO: "LLAMA_FLASH_ATTN_TYPE_AUTO",
    FlashAttention.ON: "LLAMA_FLASH_ATTN_TYPE_ENABLED",
    FlashAttention.OFF: "LLAMA_FLASH_ATTN_TYPE_DISABLED",
}
KV_TYPE = {KvType.F16: "GGML_TYPE_F16", KvType.Q8_0: "GGML_TYPE_Q8_0", KvType.Q4_0: "GGML_TYPE_Q4_0"}

NO_ROOM, ABORTED = 1, 2  # results of llama_decode


class LlamaBackend:
    """A context over a unified pool of cells; sliding-window layers hold only their window (``swa_full`` off)."""

    def __init__(self, config: EngineConfig, *, n_slots: int) -> None:
        check_model_file(config.model_path)
        self._model = LlamaModel.load(config)
        vocabulary = LlamaVocabulary(self._model)
        self.vocabulary: Vocabulary = vocabulary
        self.n_slots = n_slots
        self.batch_size = max(config.batch_size, config.parallel)
        # llama.cpp rounds its pool up; we count the configured size, so that the limit is the same everywhere.
        self.n_cells = min(config.context_size, vocabulary.trained_context or config.context_size)
        self.window = self._model.sliding_window
        # One row is 1 MB for Gemma; without a bound llama.cpp reserves one for every token of a batch.
        self.max_outputs = min(max(n_slots, config.n_logit_rows), max(n_slots, self.batch_size))
        params = context_params(config, self.n_cells, n_slots, self.batch_size)
        params.n_outputs_max = self.max_outputs
        self._context = lib.llama_init_from_model(self._model.pointer, params)
        if not self._context:
            raise BackendError(f"llama.cpp could not create a context of {self.n_cells} cells (see the log)")
        self.watch: StepWatch = watch_steps(self._context, on_cpu=config.device is not Device.GPU)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = _Batch(self.batch_size)
        self._rows_address = 0
        self._rows: NDArray[np.float32] = np.empty((0, 0), np.float32)

    @property
    def model_pointer(self) -> int:
        """Pointer for another context on the same weights, valid until this object is freed."""
        return self._model.pointer

    def decode(self, slices: Sequence[Slice]) -> list[Logits] | None:
        n_outputs = self._batch.fill(slices)
        status = lib.llama_decode(self._context, self._batch.native)
        if status == NO_ROOM:
            return None
        if status == ABORTED:
            # llama.cpp has removed the positions of the pass that it ended.
            raise StepAborted("the step was ended early")
        if status != 0:
            sizes = [(part.slot, part.start, len(part.tokens)) for part in slices]
            raise BackendError(f"llama_decode returned {status} for (slot, start, tokens) {sizes}")
        return self._logits(n_outputs) if n_outputs else []

    def _logits(self, n_outputs: int) -> list[Logits]:
        """Return views of llama.cpp's rows; its buffer moves only when it grows."""
        pointer = lib.llama_get_logits(self._context)
        address = ctypes.addressof(pointer.contents)
        if address != self._rows_address or len(self._rows) < n_outputs:
            self._rows = np.ctypeslib.as_array(pointer, shape=(n_outputs, self.vocabulary.n_tokens))
            self._rows_address = address
        return list(self._rows[:n_outputs])

    def remove(self, slot: int) -> None:
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def trim(self, slot: int, length: int) -> None:
        if not lib.llama_memory_seq_rm(self._memory, slot, length, -1):
            raise BackendError(f"llama.cpp cannot trim slot {slot} to {length}")

    def first_position(self, slot: int) -> int:
        return int(lib.llama_memory_seq_pos_min(self._memory, slot))

    def n_positions(self, slot: int) -> int:
        return int(lib.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def copy(self, source: int, target: int, length: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def save(self, slot: int) -> bytes:
        size = lib.llama_state_seq_get_size_ext(self._context, slot, lib.LLAMA_STATE_SEQ_FLAGS_NONE)
        state = np.empty(size, dtype=np.uint8)
        n_bytes = lib.llama_state_seq_get_data_ext(
            self._context, _pointer(state, ctypes.c_uint8), size, slot, lib.LLAMA_STATE_SEQ_FLAGS_NONE
        )
        if n_bytes != size:
            raise BackendError(f"llama.cpp saved {n_bytes} of {size} bytes of slot {slot}")
        return state.tobytes()

    def load(self, slot: int, state: bytes) -> bool:
        n_bytes = lib.llama_state_seq_set_data_ext(
            self._context,
            _pointer(np.frombuffer(state, dtype=np.uint8), ctypes.c_uint8),
            len(state),
            slot,
            lib.LLAMA_STATE_SEQ_FLAGS_NONE,
        )
        if state and n_bytes == len(state):
            return True
        self.remove(slot)
        return False

    def close(self) -> None:
        """Free the context; the model is freed with the last object that uses it."""
        if self._context:
            lib.llama_free(self._context)
            self._context = None


def context_params(config: EngineConfig, n_cells: int, n_slots: int, batch_size: int) -> Any:  # noqa: ANN401 ctypes
    params = lib.llama_context_default_params()
    params.n_ctx = n_cells
    params.n_batch, params.n_ubatch = batch_size, config.ubatch_size or batch_size
    params.n_seq_max = n_slots
    params.n_threads = params.n_threads_batch = config.threads
    params.flash_attn_type = getattr(lib, FLASH_ATTENTION[config.flash_attention])
    params.type_k, params.type_v = (getattr(lib, KV_TYPE[kind]) for kind in (config.kv_type_k, config.kv_type_v))
    params.kv_unified = True
    params.swa_full = False
    params.no_perf = True
    params.offload_kqv = params.op_offload = config.device is Device.GPU
    return params


class _Batch:
    """llama.cpp batch over arrays of ours, so that there is nothing to free."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, dtype=np.int32)
        self._positions = np.zeros(size, dtype=np.int32)
        self._slots = np.zeros(size, dtype=np.int32)
        self._wants_logits = np.zeros(size, dtype=np.int8)
        self._one_slot_each = np.ones(size, dtype=np.int32)
        # One pointer per token to its list of slots, which here is one place in ``_slots``.
        self._slot_lists = self._slots.ctypes.data + np.arange(size, dtype=np.uintp) * self._slots.itemsize
        self.native = lib.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, lib.llama_token),
            embd=None,
            pos=_pointer(self._positions, lib.llama_pos),
            n_seq_id=_pointer(self._one_slot_each, ctypes.c_int32),
            seq_id=_pointer(self._slot_lists, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(self._wants_logits, ctypes.c_int8),
        )

    def fill(self, slices: Sequence[Slice]) -> int:
        """Fill the batch with slices in order; returns the number of rows of logits."""
        offset = n_outputs = 0
        for part in slices:
            end = offset + len(part.tokens)
            self._tokens[offset:end] = part.tokens
            self._positions[offset:end] = np.arange(part.start, part.start + len(part.tokens))
            self._slots[offset:end] = part.slot
            self._wants_logits[offset:end] = 0
            if part.n_outputs:
                self._wants_logits[end - part.n_outputs : end] = 1
                n_outputs += part.n_outputs
            offset = end
        self.native.n_tokens = offset
        return n_outputs


def _pointer(array: NDArray[Any], kind: type) -> Any:  # noqa: ANN401  a ctypes pointer
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
