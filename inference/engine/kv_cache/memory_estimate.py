"""Estimate of the KV cache's memory from the model file's header, before anything is loaded. Knows no machine.

llama.cpp has two caches for models with sliding windows (``llama_kv_cache_iswa``): layers with full attention have one
cell for each token of the pool, the others a window for each slot plus the tokens of one pass.
"""

from dataclasses import dataclass, replace

from inference.engine.backends.gguf_header import ModelHeader
from inference.engine.config import EngineConfig, KvType

# One of so many layers has full attention; constants of llama.cpp where the file has no value.
WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5}
CELL_PADDING = 256
SMALLEST_CONTEXT = 512
# Value type -> (elements, bytes) of one block.
KV_BLOCKS = {KvType.F16: (1, 2), KvType.Q8_0: (32, 34), KvType.Q4_0: (32, 18)}


@dataclass(frozen=True, kw_only=True)
class KvShape:
    """Shape of a model's KV caches. Sizes are elements of one token in one layer."""

    n_full_layers: int
    n_window_layers: int
    window: int
    k_size: int
    v_size: int
    pattern: int = 1  # the last of each group of so many layers has full attention

    @property
    def n_layers(self) -> int:
        return self.n_full_layers + self.n_window_layers

    def of_last(self, n_layers: int) -> "KvShape":
        """Return the shape of the last layers alone, which llama.cpp offloads to a GPU first."""
        n_full = self.n_full_layers - (self.n_layers - n_layers) // self.pattern
        return replace(self, n_full_layers=n_full, n_window_layers=n_layers - n_full)

    def n_bytes(self, config: EngineConfig, n_cells: int, n_slots: int) -> int:
        """Return the bytes of both caches for a pool of ``n_cells`` and ``n_slots`` sequences."""
        per_layer = _bytes(self.k_size, config.kv_type_k) + _bytes(self.v_size, config.kv_type_v)
        in_pass = config.ubatch_size or min(config.batch_size, n_cells)
        windows = -(-(self.window * n_slots + in_pass) // CELL_PADDING) * CELL_PADDING  # rounded up
        return per_layer * (self.n_full_layers * n_cells + self.n_window_layers * min(n_cells, windows))


def kv_shape(header: ModelHeader) -> KvShape | None:
    """Return the shape, or None when the header lacks a value it depends on."""
    number = {name.partition(".")[2]: value for name, value in header.numbers.items()}
    n_layers, n_heads = number.get("block_count"), number.get("attention.head_count_kv")
    size = number.get("attention.key_length")
    if size is None and number.get("attention.head_count"):
        size = number.get("embedding_length", 0) // number["attention.head_count"]
    if not (n_layers and n_heads and size):
        return None
    window = number.get("attention.sliding_window", 0)
    # Without a known pattern every layer counts as full attention: an estimate too high is the safe error.
    pattern = WINDOW_PATTERNS.get(header.architecture, 1) if window else 1
    n_full = n_layers // pattern
    return KvShape(
        n_full_layers=n_full,
        n_window_layers=n_layers - n_full,
        window=window,
        k_size=n_heads * size,
        v_size=n_heads * number.get("attention.value_length", size),
        pattern=pattern,
    )


def sizes_that_fit(shape: KvShape, config: EngineConfig, *, n_cells: int, n_slots: int, free_bytes: int) -> list[int]:
    """Return smaller pool sizes, each half of the one before, whose caches fit ``free_bytes``; largest first."""
    sizes = []
    size = n_cells
    while (size := size // 2) >= SMALLEST_CONTEXT:
        if shape.n_bytes(config, size, n_slots) <= free_bytes:
            sizes.append(size)
    return sizes


def _bytes(n_elements: int, kind: KvType) -> int:
    elements, n_bytes = KV_BLOCKS[kind]
    return n_elements // elements * n_bytes
