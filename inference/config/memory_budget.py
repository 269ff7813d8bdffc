"""Whether the model and a context of the wanted size fit into RAM, or a runner's part of them onto a card, before
anything is loaded. Knows neither the machine nor the card, only what they say is free.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from inference.config.free_memory import FreeMemory
from inference.config.from_settings import capped_context
from inference.engine.backends.gguf_header import ModelHeader, check_model_file
from inference.engine.config import MEBIBYTE, EngineConfig
from inference.engine.kv_cache.memory_estimate import KvShape, kv_shape, sizes_that_fit
from inference.errors import TooLittleMemory

# Buffers of the computation and the process itself, beside weights and caches.
OVERHEAD_BYTES = 300 * MEBIBYTE
# On a card the driver's own part for a process comes on top. An estimate: no card has been measured.
GPU_OVERHEAD_BYTES = 700 * MEBIBYTE


@lru_cache(maxsize=4)
def kv_bytes(config: EngineConfig) -> int | None:
    """What the caches of this configuration take, its context capped by the file; None if the file does not say."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    return MemoryNeed.of(config, header, shape).caches if shape else None


def check_memory(config: EngineConfig, free: FreeMemory) -> None:
    """Raises TooLittleMemory, or ModelFileError. A file that does not say enough is not checked."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return
    need = MemoryNeed.of(config, header, shape)
    if need.total <= free.n_bytes:
        return
    raise TooLittleMemory(
        f"{need} are needed, but {_mb(free.n_bytes)} MB are free ({free.limit}); {need.fitting(free.n_bytes)}. "
        "Smaller GEMMA_PARALLEL, GEMMA_KV_TYPE_K and GEMMA_KV_TYPE_V need less too."
    )


def gpu_memory_shortage(config: EngineConfig, free_mb: int) -> str:
    """Why not all layers that ``config`` puts onto a card fit into so much memory of it, and which contexts and numbers
    of layers would; empty when they fit or the file does not say. Raises ModelFileError."""
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return ""
    need, free_bytes = MemoryNeed.of(config, header, shape).on_card(config.layers_on_gpu), free_mb * MEBIBYTE
    if need.total <= free_bytes:
        return ""
    layers = layers_that_fit(config, free_mb)
    advice = f"with this one GEMMA_GPU_LAYERS={layers} fits" if layers else "with this one not even one layer fits"
    return f"{need} are needed, but {free_mb} MB are free; {need.fitting(free_bytes)}; {advice}"


def layers_that_fit(config: EngineConfig, free_mb: int) -> int:
    """Of the layers that ``config`` puts onto a card, how many fit into so much memory of it.

    A file that does not say enough is believed to fit. Raises ModelFileError.
    """
    header = check_model_file(config.model_path)
    shape = kv_shape(header)
    if shape is None:
        return config.layers_on_gpu
    whole = MemoryNeed.of(config, header, shape)
    # Beyond its last layer llama.cpp takes one for the output, which is among the weights already.
    wanted = min(config.layers_on_gpu, shape.n_layers + 1)
    return next((n for n in range(wanted, 0, -1) if whole.on_card(n).total <= free_mb * MEBIBYTE), 0)


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """What a runner takes of one kind of memory, and what it would with another context. ``n_layers`` None: of RAM."""

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

    def on_card(self, n_layers: int) -> "MemoryNeed":
        """The part of so many layers; their share of the weights, which is a little too much."""
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
        """For the user: smaller contexts that would fit."""
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
