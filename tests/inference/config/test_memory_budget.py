"""The check before loading: whether a model fits into RAM or onto a GPU, and the sizes that would."""

from pathlib import Path

import msgspec
import pytest

from inference.config.free_memory import FreeMemory
from inference.config.memory_budget import (
    GPU_OVERHEAD_BYTES,
    OVERHEAD_BYTES,
    check_memory,
    gpu_memory_shortage,
    kv_bytes,
)
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.config import MEBIBYTE, Device, EngineConfig
from inference.engine.kv_cache.memory_estimate import kv_shape
from inference.errors import TooLittleMemory


@pytest.fixture
def config(model_path: Path) -> EngineConfig:
    return EngineConfig(model_path=model_path, context_size=65_536, parallel=8)


def test_a_fitting_configuration_passes_and_one_byte_less_does_not(config: EngineConfig) -> None:
    caches = kv_bytes(config)
    assert caches is not None
    assert caches == pytest.approx(178.5 * MEBIBYTE), "of 32,768 cells: the file knows no more positions"
    needed = caches + check_model_file(config.model_path).data_end + OVERHEAD_BYTES
    check_memory(config, FreeMemory(needed, "MemAvailable"))
    with pytest.raises(TooLittleMemory) as caught:
        check_memory(config, FreeMemory(needed - 1, "MemAvailable"))
    message = str(caught.value)
    assert "GEMMA_CONTEXT_SIZE=65536 (32768 used): 179 MB of caches, 242 MB of the model" in message
    assert "(MemAvailable); sizes that fit: 16384, 8192, 4096, 2048, 1024, 512." in message


def test_the_message_names_that_no_size_fits(config: EngineConfig) -> None:
    with pytest.raises(TooLittleMemory, match="no size fits; use a smaller model"):
        check_memory(config, FreeMemory(10 * MEBIBYTE, "MemAvailable"))


class TestTheCard:
    @pytest.fixture
    def on_gpu(self, config: EngineConfig) -> EngineConfig:
        return msgspec.structs.replace(config, device=Device.GPU, gpu_layers=9)

    def needed_mb(self, config: EngineConfig) -> int:
        shape = kv_shape(check_model_file(config.model_path))
        assert shape is not None
        caches = shape.of_last(9).n_bytes(config, 32_768, config.n_slots)
        weights = check_model_file(config.model_path).data_end * 9 // 18
        return -(-(caches + weights + GPU_OVERHEAD_BYTES) // MEBIBYTE)

    def test_the_layers_of_the_card_are_counted_alone(self, on_gpu: EngineConfig) -> None:
        needed = self.needed_mb(on_gpu)
        assert gpu_memory_shortage(on_gpu, needed) == ""
        message = gpu_memory_shortage(on_gpu, needed - 1)
        assert "GEMMA_CONTEXT_SIZE=65536 (32768 used): GEMMA_GPU_LAYERS=9:" in message
        assert f"{needed - 1} MB are free" in message
        assert "sizes that fit: 16384, 8192," in message
        assert "GEMMA_GPU_LAYERS=8 fits" in message

    def test_more_layers_than_the_model_has_are_all_of_it(self, on_gpu: EngineConfig) -> None:
        every = msgspec.structs.replace(on_gpu, gpu_layers=999)
        caches = kv_bytes(every)
        assert caches is not None
        needed = caches + check_model_file(every.model_path).data_end + GPU_OVERHEAD_BYTES
        assert gpu_memory_shortage(every, -(-needed // MEBIBYTE)) == ""
        assert "GEMMA_GPU_LAYERS=18: 224 MB of caches" in gpu_memory_shortage(every, needed // MEBIBYTE - 1)

    def test_a_card_that_is_full_takes_nothing(self, on_gpu: EngineConfig) -> None:
        message = gpu_memory_shortage(on_gpu, 100)
        assert "no size fits; use a smaller model; with this one not even one layer fits" in message
