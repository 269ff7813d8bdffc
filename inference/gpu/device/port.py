"""The GPU as a device: name, memory, and memory per process. Knows no lease and no runner."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

import psutil

from inference.engine.config import MEBIBYTE


class GpuDevice(Protocol):
    """A GPU. Figures of the driver raise GpuUnavailable when it does not answer."""

    @property
    def uuid(self) -> str:
        """Identifies the device in locks and records; indexes change when a GPU is added."""

    @property
    def name(self) -> str: ...

    @property
    def total_mb(self) -> int: ...

    @property
    def free_mb(self) -> int: ...

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        """Memory that these processes hold together; 0 once they have exited and the driver has freed it."""


class SimulatedGpu:
    """A GPU made of RAM: the resident memory of a process counts as its GPU memory.

    ``free_mb`` counts the processes of the last ``vram_used_mb_of``: no other program uses such a device.
    """

    uuid = "GPU-simulated"
    name = "simulated card"

    def __init__(self, total_mb: int = 8192) -> None:
        self.total_mb = total_mb
        self._pids: frozenset[int] = frozenset()

    @property
    def free_mb(self) -> int:
        return max(0, self.total_mb - sum(map(_resident_mb, self._pids)))

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        self._pids = frozenset(pids)
        return sum(map(_resident_mb, self._pids))


def _resident_mb(pid: int) -> int:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # A zombie holds no memory, even before its parent has fetched its status.
        if process.status() != psutil.STATUS_ZOMBIE:
            return max(1, process.memory_info().rss // MEBIBYTE)
    return 0
