"""Discovery of the GPU of this installation."""

from django.conf import settings

from inference.gpu.device.nvml import NvmlGpu
from inference.gpu.device.port import GpuDevice, SimulatedGpu


def find_gpu(mode: str) -> GpuDevice | None:
    """Return the GPU for a mode of ``GEMMA_GPU``; None: there is none, or it must not be used.

    Does not check whether the installed llama.cpp can use it.
    """
    if mode == "simulated":
        return SimulatedGpu()
    return NvmlGpu.open(settings.GEMMA_MAIN_GPU) if mode == "auto" else None
