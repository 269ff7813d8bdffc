"""Time by which a runner has to be gone, in a file that its parent keeps extending.

A parent that is suspended (SIGSTOP, a debugger, a machine that swaps) can neither renew its lease nor kill its runner:
the runner reads the time itself. It is an instant of the monotonic clock, which both processes share; a duration would
begin anew after both were suspended. A runner that is suspended too is killed by the kernel. Knows no lease.
"""

import math
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from inference.engine.process.kill_timer import KillTimer

STATUS = 75  # exit status of a runner whose deadline passed
LONGEST_SLEEP_SECS = 10.0  # of an infinite time
SHORTEST_SLEEP_SECS = 0.005
KILL_DELAY_SECS = 0.1  # after the deadline: a runner that is not suspended exits by itself
_FORMAT = struct.Struct("<d")


class Deadline:
    """The parent's side. Infinite until it is set."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.extend(math.inf)

    def extend(self, until: float) -> None:
        """``until``: on ``time.monotonic``. Raises OSError."""
        os.pwrite(self._descriptor, _FORMAT.pack(until), 0)


def has_passed(path: Path) -> bool:
    return not _read(path) > time.monotonic()  # also when it is no number


def wait_until_passed(path: Path, on_read: Callable[[float], object] = lambda until: None) -> None:
    """Return once the deadline has passed, also when its file is gone or damaged. ``on_read`` gets each time read."""
    while (secs := (until := _read(path)) - time.monotonic()) > 0:
        on_read(until)
        # Read long before it passes, since it may have been extended meanwhile, and ``on_read`` has to be in time.
        time.sleep(min(max(secs / 2, SHORTEST_SLEEP_SECS), secs, LONGEST_SLEEP_SECS))


def end_when_passed(path: Path) -> None:
    """End this process with ``STATUS`` once the deadline has passed, at once if it has. Call before the model loads.

    While it is suspended it cannot: the kernel kills it then. Raises OSError."""
    if has_passed(path):
        os._exit(STATUS)
    timer = KillTimer()

    def watch() -> None:
        wait_until_passed(path, lambda until: timer.arm(until + KILL_DELAY_SECS))
        os._exit(STATUS)

    threading.Thread(target=watch, name="runner-deadline", daemon=True).start()


def _read(path: Path) -> float:
    try:
        (until,) = _FORMAT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return -math.inf
    return float(until)
