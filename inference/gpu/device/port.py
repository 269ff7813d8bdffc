"""What is known of the card: its name, its memory, and who has how much of it. Knows no lease and no runner."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

import psutil

from inference.engine.config import MEBIBYTE


class GpuDevice(Protocol):
    """One graphics card. What is asked of its driver raises GpuUnavailable when that does not answer."""

    @property
    def uuid(self) -> str:
        """What the lock and the records call it; indexes change when a card is added."""

    @property
    def name(self) -> str: ...

    @property
    def total_mb(self) -> int: ...

    @property
    def free_mb(self) -> int: ...

    def vram_used_mb_of(self, pids: Iterable[int]) -> int:
        """What these processes hold of the card's memory together; 0 once they have ended and it is really free."""


class SimulatedGpu:
    """A card made of RAM: what a process holds in memory counts as its share of the card's.

    ``free_mb`` counts those that were asked about last: nobody else uses such a card.
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
        # One that has ended holds nothing, even before its parent has fetched its status.
        if process.status() != psutil.STATUS_ZOMBIE:
            return max(1, process.memory_info().rss // MEBIBYTE)
    return 0
