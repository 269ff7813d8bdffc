"""Which card there is for this installation."""

from django.conf import settings

from inference.gpu.device.nvml import NvmlGpu
from inference.gpu.device.port import GpuDevice, SimulatedGpu


def find_gpu(mode: str) -> GpuDevice | None:
    """The card of ``GEMMA_GPU``'s modes; None: there is none, or it must not be used.

    Whether the installed llama.cpp can use it is not asked here.
    """
    if mode == "simulated":
        return SimulatedGpu()
    return NvmlGpu.open(settings.GEMMA_MAIN_GPU) if mode == "auto" else None
