"""An NVIDIA GPU as its driver reports it. Knows NVML and no lease."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pynvml

from inference.engine.config import MEBIBYTE
from inference.errors import GpuUnavailable

log = logging.getLogger(__name__)


class NvmlGpu:
    """A GPU; memory figures are read from the driver each time."""

    def __init__(self, handle: object) -> None:
        self._handle = handle
        self.uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        self.name = str(pynvml.nvmlDeviceGetName(handle))
        self.total_mb = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MEBIBYTE

    @classmethod
    def open(cls, index: int) -> "NvmlGpu | None":
        """Open the GPU with this index; None: no driver, or no such GPU."""
        try:
            pynvml.nvmlInit()
            return cls(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:
            # Normal on a machine without a GPU.
            log.info("no NVIDIA GPU index=%d reason=%s", index, error)
            return None

    @property
    def free_mb(self) -> int:
        with self._translated_errors():
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).free) // MEBIBYTE

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        """Return the MiB that the processes hold. In a container the driver may list processes by ids of the host, or
        none: then this is always 0, and the exit of a process is the only evidence that its memory is free."""
        pids = set(pids)
        with self._translated_errors():
            processes = [*pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]
            processes += pynvml.nvmlDeviceGetGraphicsRunningProcesses(self._handle)
        # The amount may be unknown: a listed process counts for at least 1 MB. A process may be in both lists.
        used = {process.pid: max(1, (process.usedGpuMemory or 0) // MEBIBYTE) for process in processes}
        return sum(mb for pid, mb in used.items() if pid in pids)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate every NVML error, as of a GPU that fell off the bus or a driver that is being replaced."""
        try:
            yield
        except pynvml.NVMLError as error:
            raise GpuUnavailable(f"the driver of {self.name} does not answer: {error}") from error
