"""KV memory from the header alone: as many bytes as llama.cpp reports."""

from pathlib import Path

import pytest

from inference.engine.backends.gguf_header import ModelHeader, check_model_file
from inference.engine.config import MEBIBYTE, EngineConfig, FlashAttention, KvType
from inference.engine.kv_cache.memory_estimate import KvShape, kv_shape, sizes_that_fit

GEMMA_4B = ModelHeader(
    version=3,
    n_tensors=1,
    n_keys=1,
    data_start=0,
    data_end=0,
    architecture="gemma3",
    numbers={
        "gemma3.block_count": 34,
        "gemma3.attention.head_count_kv": 4,
        "gemma3.attention.key_length": 256,
        "gemma3.attention.value_length": 256,
        "gemma3.attention.sliding_window": 1024,
        "gemma3.context_length": 131072,
    },
)


def config(**changes: object) -> EngineConfig:
    return EngineConfig(model_path=Path("none.gguf"), flash_attention=FlashAttention.ON, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_cells", "n_slots", "ubatch", "kind", "mib"),
    [
        # Sizes of the two buffers for the default model, from llama.cpp's log.
        (4096, 4, 512, KvType.F16, 12.0 + 37.5),
        (32768, 16, 512, KvType.F16, 96.0 + 127.5),
        (32768, 4, 512, KvType.Q8_0, 51.0 + 19.92),
        (8192, 17, 256, KvType.F16, 24.0 + 120.0),
    ],
)
def test_the_default_models_caches(
    model_path: Path, n_cells: int, n_slots: int, ubatch: int, kind: KvType, mib: float
) -> None:
    shape = kv_shape(check_model_file(model_path))
    assert shape == KvShape(n_full_layers=3, n_window_layers=15, window=512, k_size=256, v_size=256, pattern=6)
    own = config(batch_size=ubatch, kv_type_k=kind, kv_type_v=kind)
    assert shape.n_bytes(own, n_cells, n_slots) / MEBIBYTE == pytest.approx(mib, abs=0.01)


def test_a_larger_models_shape_from_its_header() -> None:
    shape = kv_shape(GEMMA_4B)
    assert shape == KvShape(n_full_layers=5, n_window_layers=29, window=1024, k_size=1024, v_size=1024, pattern=6)
    assert GEMMA_4B.trained_context == 131072


@pytest.mark.parametrize(
    # Layers 5, 11, 17, 23 and 29 of 34 see everything; 24 to 33 are the last ten.
    ("n_layers", "n_full"),
    [(34, 5), (30, 5), (29, 5), (28, 4), (25, 4), (10, 1), (5, 1), (4, 0), (1, 0), (0, 0)],
)
def test_the_caches_of_the_last_layers(n_layers: int, n_full: int) -> None:
    shape = kv_shape(GEMMA_4B)
    assert shape is not None
    last = shape.of_last(n_layers)
    assert (last.n_full_layers, last.n_window_layers) == (n_full, n_layers - n_full)


def test_a_header_that_does_not_say_enough_promises_nothing() -> None:
    assert kv_shape(ModelHeader(version=3, n_tensors=1, n_keys=0, data_start=0, data_end=0)) is None


def test_an_unknown_pattern_of_windows_is_counted_as_if_there_were_none() -> None:
    unknown = ModelHeader(
        version=3,
        n_tensors=1,
        n_keys=1,
        data_start=0,
        data_end=0,
        architecture="other",
        numbers={name.replace("gemma3", "other"): value for name, value in GEMMA_4B.numbers.items()},
    )
    shape = kv_shape(unknown)
    assert shape is not None
    assert (shape.n_full_layers, shape.n_window_layers) == (34, 0)


def test_the_sizes_that_fit_are_named_from_the_largest() -> None:
    shape = kv_shape(GEMMA_4B)
    assert shape is not None
    own = config()
    free = shape.n_bytes(own, 16_384, 8)
    assert sizes_that_fit(shape, own, n_cells=65_536, n_slots=8, free_bytes=free) == [
        16_384, 8192, 4096, 2048, 1024, 512,
    ]  # fmt: skip
    assert sizes_that_fit(shape, own, n_cells=65_536, n_slots=8, free_bytes=1000) == []
