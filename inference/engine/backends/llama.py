"""Model file loaded by llama.cpp.

Only this module, ``llama_library``, ``llama_vocabulary``, ``llama_backend`` and ``sampling`` call llama.cpp.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends.llama_library import start_library
from inference.engine.config import Device, EngineConfig
from inference.engine.errors import ModelFileError


class LlamaModel:
    """Owns one ``llama_model``; freed with this object, so users of the pointer hold a reference."""

    def __init__(self, pointer: int, path: Path) -> None:
        self.pointer = pointer
        self._free = lib.llama_model_free  # found now: nothing can be imported while the process ends
        self.path = path
        self.vocab = lib.llama_model_get_vocab(pointer)
        # Scalars as text; llama.cpp leaves arrays out.
        self.metadata = {
            _string(lib.llama_model_meta_key_by_index, pointer, index): _string(
                lib.llama_model_meta_val_str_by_index, pointer, index
            )
            for index in range(lib.llama_model_meta_count(pointer))
        }

    def __del__(self) -> None:
        self._free(self.pointer)

    @classmethod
    def load_vocabulary(cls, path: Path) -> "LlamaModel":
        """Load tokens and metadata only: a fraction of a second, no weights in memory."""
        start_library()
        params = lib.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        return cls._load(path, params)

    @classmethod
    def load(cls, config: EngineConfig) -> "LlamaModel":
        """Load the whole model on the configured device."""
        start_library()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = config.layers_on_gpu if config.device is Device.GPU else 0
        no_devices = (ctypes.c_void_p * 1)(None)
        # Zeros behind the shares: llama.cpp reads one for every possible device.
        shares = (ctypes.c_float * lib.llama_max_devices())(*config.tensor_split)
        if config.device is Device.GPU:
            # A model without shares is kept on one GPU: others may be in use.
            params.main_gpu = config.main_gpu
            params.split_mode = lib.LLAMA_SPLIT_MODE_LAYER if config.tensor_split else lib.LLAMA_SPLIT_MODE_NONE
            if config.tensor_split:
                params.tensor_split = shares
        else:
            # An empty list, not a null pointer: a build with CUDA must not touch a GPU without a lease.
            params.devices = ctypes.addressof(no_devices)
        if config.mlock:
            params.load_mode = lib.LLAMA_LOAD_MODE_MMAP_MLOCK
        return cls._load(config.model_path, params)

    @classmethod
    def _load(cls, path: Path, params: "lib.llama_model_params") -> "LlamaModel":
        pointer = lib.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise ModelFileError(f"model file {path} was refused by llama.cpp (its reason is in the log)")
        return cls(pointer, path)

    @property
    def name(self) -> str:
        return self.metadata.get("general.name") or self.path.stem

    @property
    def trained_context(self) -> int:
        """Tokens, from the file: llama.cpp returns 0 when only the vocabulary is loaded."""
        return self._number("context_length", 0)

    @property
    def sliding_window(self) -> int:
        """Positions that windowed layers attend to; 0 without such layers."""
        return int(lib.llama_model_n_swa(self.pointer))

    def _number(self, key: str, default: int) -> int:
        architecture = self.metadata.get("general.architecture", "")
        value = self.metadata.get(f"{architecture}.{key}", "")
        return int(value) if value.isdecimal() else default


def _string(function: Callable[..., int], model: int, index: int) -> str:
    """Return the result of a snprintf-like function of llama.cpp, of any length (chat templates are long)."""
    buffer = ctypes.create_string_buffer(512)
    length = function(model, index, buffer, len(buffer))
    if length >= len(buffer):
        buffer = ctypes.create_string_buffer(length + 1)
        function(model, index, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
