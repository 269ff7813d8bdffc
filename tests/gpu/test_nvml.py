"""A real card, where there is one; and that its absence is no fault."""

import os
from types import SimpleNamespace

import pynvml
import pytest
from pytest_django import Settings

from inference.errors import GpuUnavailable
from inference.gpu.device.discovery import find_gpu
from inference.gpu.device.nvml import NvmlGpu
from inference.gpu.device.port import SimulatedGpu

CARD = NvmlGpu.open(0)
on_a_card = pytest.mark.skipif(CARD is None, reason="no NVIDIA card here: what the driver says of VRAM is not tested")


def test_the_modes_find_what_they_say(settings: Settings) -> None:
    assert find_gpu("off") is None
    assert isinstance(find_gpu("simulated"), SimulatedGpu)
    settings.GEMMA_MAIN_GPU = 15  # on a machine with fewer GPUs there is none with this number
    assert find_gpu("auto") is None


def test_without_a_driver_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert NvmlGpu.open(0) is None


def test_what_a_process_holds_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be listed for computing and for drawing, with or without an amount."""
    listed = [SimpleNamespace(pid=7, usedGpuMemory=900 << 20), SimpleNamespace(pid=8, usedGpuMemory=None)]
    memory = SimpleNamespace(total=8 << 30, free=7 << 30)
    for name, value in {
        "nvmlDeviceGetUUID": "GPU-1",
        "nvmlDeviceGetName": "a card",
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetComputeRunningProcesses": listed,
        "nvmlDeviceGetGraphicsRunningProcesses": listed[:1],
    }.items():
        monkeypatch.setattr(pynvml, name, lambda handle, value=value: value)
    card = NvmlGpu(object())
    assert (card.uuid, card.name, card.total_mb, card.free_mb) == ("GPU-1", "a card", 8192, 7168)
    assert card.vram_used_mb_of([7]) == 900
    assert card.vram_used_mb_of([8]) == 1  # how much is not known, that it is there is
    assert card.vram_used_mb_of([7, 8, 9]) == 901
    assert card.vram_used_mb_of([9]) == 0


def test_a_card_that_is_lost_is_unavailable_and_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(handle: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName"):
        monkeypatch.setattr(pynvml, name, lambda handle: "a card")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(total=8 << 30, free=0))
    card = NvmlGpu(object())
    for name in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses"):
        monkeypatch.setattr(pynvml, name, lost)
    with pytest.raises(GpuUnavailable, match="a card does not answer"):
        card.vram_used_mb_of([7])
    with pytest.raises(GpuUnavailable):
        _ = card.free_mb


@on_a_card
def test_the_driver_names_a_card_and_its_memory() -> None:
    assert CARD is not None
    assert CARD.uuid.startswith("GPU-")
    assert 0 < CARD.free_mb <= CARD.total_mb
    assert CARD.vram_used_mb_of([os.getpid()]) == 0
