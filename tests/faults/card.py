"""Observes the processes on the GPU of a service under test, and whether there was ever more than one."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.breaking import FaultStack

LOOK_SECS = 0.02
TITLE = b"gemma-runner gpu"
# Long enough for a new process to have set its title.
BECOMING_SECS = 10.0
SIMULATED = {
    "GEMMA_GPU": "simulated",
    "GPU_LEASE_TTL_SECS": "1",
    "GPU_MIN_HOLD_SECS": "0.2",
    "GPU_LINGER_SECS": "0.2",
}


@dataclass
class CardWatch:
    """Polls for the processes on the GPU: live runners that have its lock file open."""

    lock: Path
    holders: list[int] = field(default_factory=list)  # in the order in which they came
    crowds: list[list[int]] = field(default_factory=list)  # more than one in one look
    n_looks: int = 0
    _seen_at: dict[str, float] = field(default_factory=dict)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> list[int]:
        with self._looking:
            now = [int(entry.name) for entry in self._processes() if self._has_lock(entry)]
            self.n_looks += 1
            if len(now) > 1:
                self.crowds.append(now)
            self.holders += [pid for pid in now if pid not in self.holders]
            return now

    def _processes(self) -> Iterator[Path]:
        """Return the processes that are new, or runners on a GPU."""
        now = time.monotonic()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and now - self._seen_at.setdefault(entry.name, now) < BECOMING_SECS:
                yield entry

    def _has_lock(self, process: Path) -> bool:
        try:
            # A process that has ended has no title, nor has one that was not reaped yet.
            if not (process / "cmdline").read_bytes().startswith(TITLE):
                return False
            del self._seen_at[process.name]
            return any(each.readlink() == self.lock for each in (process / "fd").iterdir())
        except OSError:  # it ended in this moment
            return False


@contextmanager
def watched(stack: FaultStack, *, every_secs: float = LOOK_SECS) -> Iterator[CardWatch]:
    """Poll while the body runs."""
    # The lock of a simulated GPU lies with the data.
    watch, over = CardWatch(stack.data_dir / "gemma-gpu-GPU-simulated.lock"), threading.Event()

    def run() -> None:
        while not over.wait(every_secs):
            watch.look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
