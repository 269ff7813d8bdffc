"""A card of NVIDIA's, as its driver sees it. Knows NVML and no lease."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pynvml

from inference.engine.config import MEBIBYTE
from inference.errors import GpuUnavailable

log = logging.getLogger(__name__)


class NvmlGpu:
    """One card. The numbers are the driver's, and it is asked anew each time."""

    def __init__(self, handle: object) -> None:
        self._handle = handle
        self.uuid = str(pynvml.nvmlDeviceGetUUID(handle))
        self.name = str(pynvml.nvmlDeviceGetName(handle))
        self.total_mb = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // MEBIBYTE

    @classmethod
    def open(cls, index: int) -> "NvmlGpu | None":
        """The card with this number, or None: no driver, or no such card."""
        try:
            pynvml.nvmlInit()
            return cls(pynvml.nvmlDeviceGetHandleByIndex(index))
        except pynvml.NVMLError as error:
            # On a machine without a card this is how things are, not a fault.
            log.info("no NVIDIA card %d: %s", index, error)
            return None

    @property
    def free_mb(self) -> int:
        with self._asking():
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).free) // MEBIBYTE

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        """In a container the driver may list processes by the host's numbers, or none: then this is 0 all the time, and
        only that a process has ended says that its memory is free."""
        asked = set(pids)
        with self._asking():
            found = [*pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]
            found += pynvml.nvmlDeviceGetGraphicsRunningProcesses(self._handle)
        # The driver may not say how much; that it lists the process says that it is there. One may be in both lists.
        used = {process.pid: max(1, (process.usedGpuMemory or 0) // MEBIBYTE) for process in found}
        return sum(mb for pid, mb in used.items() if pid in asked)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """A card that fell off the bus, or a driver that is being replaced, is one kind of error from here on."""
        try:
            yield
        except pynvml.NVMLError as error:
            raise GpuUnavailable(f"the driver of {self.name} does not answer: {error}") from error
