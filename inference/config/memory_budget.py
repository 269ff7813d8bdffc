"""The memory budget of a configuration, checked before anything is loaded: weights and KV cache in RAM, or a runner's
share of them on a GPU. Knows neither the machine nor the GPU, only their free memory.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from inference.config.free_memory import FreeMemory
from inference.config.from_settings import capped_context
from inference.engine.backends.gguf_header import ModelHeader, check_model_file
from inference.engine.config import MEBIBYTE, BackendKind, EngineConfig
from inference.engine.kv_cache.memory_estimate import KvShape, kv_shape, sizes_that_fit
from inference.errors import TooLittleMemory

# Compute buffers and the process itself, beside weights and KV cache.
OVERHEAD_BYTES = 300 * MEBIBYTE
# On a GPU the driver's share for a process comes on top. An estimate: no GPU has been measured.
GPU_OVERHEAD_BYTES = 700 * MEBIBYTE


@lru_cache(maxsize=4)
def kv_bytes(config: EngineConfig) -> int | None:
    """Bytes of the KV cache, the context capped by the model file; None if the file does not state its shape."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    return MemoryNeed.of(config, header, shape).caches if shape else None


def kv_cache_mb(config: EngineConfig) -> float | None:
    """The size of the KV cache for reports; None for the scripted model, and when the file does not state it."""
    n_bytes = None if config.backend is BackendKind.FAKE else kv_bytes(config)
    return None if n_bytes is None else round(n_bytes / MEBIBYTE, 1)


def check_memory(config: EngineConfig, free: FreeMemory) -> None:
    """Raise TooLittleMemory or ModelFileError. A file that does not state its shape is not checked."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return
    need = MemoryNeed.of(config, header, shape)
    if need.total <= free.n_bytes:
        return
    raise TooLittleMemory(
        f"{need} are needed, but {_mb(free.n_bytes)} MB are free ({free.limit}); {need.fitting(free.n_bytes)}. "
        "Smaller values of GEMMA_PARALLEL, GEMMA_KV_TYPE_K and GEMMA_KV_TYPE_V need less, too."
    )


def gpu_memory_shortage(config: EngineConfig, free_mb: int) -> str:
    """The reason why the configured layers do not fit into ``free_mb`` of the GPU, with contexts and numbers of layers
    that do; empty when they fit or the file does not state its shape. Raises ModelFileError."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return ""
    need, free_bytes = MemoryNeed.of(config, header, shape).on_gpu(config.layers_on_gpu), free_mb * MEBIBYTE
    if need.total <= free_bytes:
        return ""
    layers = layers_that_fit(config, free_mb)
    advice = f"with this one GEMMA_GPU_LAYERS={layers} fits" if layers else "with this one not even one layer fits"
    return f"{need} are needed, but {free_mb} MB are free; {need.fitting(free_bytes)}; {advice}"


def layers_that_fit(config: EngineConfig, free_mb: int) -> int:
    """The number of the configured layers that fit into ``free_mb`` of the GPU.

    All of them for a file that does not state its shape. Raises ModelFileError.
    """
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return config.layers_on_gpu
    whole = MemoryNeed.of(config, header, shape)
    # llama.cpp counts the output as one layer more; its weights are part of the whole already.
    n_requested = min(config.layers_on_gpu, shape.n_layers + 1)
    return next((n for n in range(n_requested, 0, -1) if whole.on_gpu(n).total <= free_mb * MEBIBYTE), 0)


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """A runner's need of one kind of memory; ``n_layers`` is None for RAM."""

    config: EngineConfig
    shape: KvShape
    n_cells: int
    weights: int  # bytes
    overhead: int = OVERHEAD_BYTES
    n_layers: int | None = None

    @classmethod
    def of(cls, config: EngineConfig, header: ModelHeader, shape: KvShape) -> "MemoryNeed":
        n_cells = capped_context(config, header.trained_context)
        return cls(config=config, shape=shape, n_cells=n_cells, weights=header.data_end)

    def on_gpu(self, n_layers: int) -> "MemoryNeed":
        """The need of so many layers on a GPU. Their share of the weights is slightly overestimated."""
        n_layers = min(n_layers, self.shape.n_layers)
        share = self.weights * n_layers // self.shape.n_layers
        return replace(self, weights=share, overhead=GPU_OVERHEAD_BYTES, n_layers=n_layers)

    @property
    def caches(self) -> int:
        return self._shape.n_bytes(self.config, self.n_cells, self.config.n_slots)

    @property
    def total(self) -> int:
        return self.caches + self.weights + self.overhead

    def fitting(self, free_bytes: int) -> str:
        """Smaller contexts that fit, as text for the operator."""
        for_caches = free_bytes - self.weights - self.overhead
        sizes = sizes_that_fit(
            self._shape, self.config, n_cells=self.n_cells, n_slots=self.config.n_slots, free_bytes=for_caches
        )
        return f"sizes that fit: {', '.join(map(str, sizes))}" if sizes else "no size fits; use a smaller model"

    @property
    def _shape(self) -> KvShape:
        return self.shape if self.n_layers is None else self.shape.of_last(self.n_layers)

    def __str__(self) -> str:
        layers = "" if self.n_layers is None else f" GEMMA_GPU_LAYERS={self.n_layers}:"
        return (
            f"GEMMA_CONTEXT_SIZE={self.config.context_size} ({self.n_cells} used):{layers} "
            f"{_mb(self.caches)} MB of caches, {_mb(self.weights)} MB of the model "
            f"and {_mb(self.overhead)} MB to compute with"
        )


def _mb(n_bytes: int) -> int:
    return -(-n_bytes // MEBIBYTE)
