"""A program that shares the GPU: it holds a block of memory, counts its work, and leaves for the chat service.

    python -m examples.gpu_tenant --redis-url unix:///path/to/valkey.sock

Start `manage.py serve` beside it (GEMMA_GPU=simulated without a GPU), chat, and watch the count stop and go on.
Kill either of them at any time: the other goes on, and this one finds the coordinator again.
"""

import argparse
import signal
import sys
import time
from types import FrameType

from inference.gpu.tenant import gpu_tenant

MEGABYTE = 1_000_000


class Work:
    """Stands for a model on the GPU and the units of work that need it."""

    def __init__(self, megabytes: int, unit_secs: float) -> None:
        self.megabytes = megabytes
        self.unit_secs = unit_secs
        self.n_done = 0
        self.n_pauses = 0
        self.paused_secs = 0.0
        self._memory = bytearray()
        self._paused_at: float | None = None

    def load(self) -> None:
        """The GPU may be used from now on."""
        # Filled, since the kernel allocates pages only when they are written.
        self._memory = bytearray(b"\1") * (self.megabytes * MEGABYTE)
        if self._paused_at is not None:
            self.paused_secs += time.monotonic() - self._paused_at
            self._paused_at = None
        say(f"resumed: holding {self.megabytes} MB")

    def unload(self) -> None:
        """Another tenant needs the GPU: when this returns, our memory is free."""
        self._memory = bytearray()
        self.n_pauses += 1
        self._paused_at = time.monotonic()
        say(f"paused after {self.n_done} units: holding 0 MB")

    def do_one(self) -> None:
        time.sleep(self.unit_secs)
        self.n_done += 1

    def __str__(self) -> str:
        memory_mb = len(self._memory) // MEGABYTE
        return f"{self.n_done} units, {memory_mb} MB, {self.n_pauses} pauses, {self.paused_secs:.1f} s without the GPU"


def say(line: str) -> None:
    """Write a line in one piece: the tenant calls from its own thread, and print writes the line end separately."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="An example tenant of the GPU.")
    parser.add_argument("--name", default="transcription")
    parser.add_argument("--megabytes", type=int, default=256, help="memory to hold (256)")
    parser.add_argument("--unit-secs", type=float, default=0.1, help="how long one unit of work takes (0.1)")
    parser.add_argument("--redis-url", help="where the coordinator talks to its tenants (GPU_REDIS_URL, REDIS_URL)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    work = Work(arguments.megabytes, arguments.unit_secs)
    next_line_at = 0.0
    with gpu_tenant(arguments.name, on_pause=work.unload, on_resume=work.load, redis_url=arguments.redis_url) as gpu:
        try:
            while True:
                with gpu.use():
                    work.do_one()
                if time.monotonic() >= next_line_at:
                    next_line_at = time.monotonic() + 1.0
                    say(f"working: {work}")
        except KeyboardInterrupt:
            say(f"ended: {work}")


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
