"""Time by which a runner has to be gone, in a file that its parent keeps extending.

A parent that is suspended (SIGSTOP, a debugger, a machine that swaps) can neither renew its lease nor kill its runner:
the runner reads the time itself. It is an instant of the monotonic clock, which both processes share; a duration would
begin anew after both were suspended. Knows no lease.
"""

import math
import os
import struct
import threading
import time
from pathlib import Path

STATUS = 75  # exit status of a runner whose deadline passed
LONGEST_SLEEP_SECS = 10.0  # of an infinite time
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


def wait_until_passed(path: Path) -> None:
    """Return once the deadline has passed, also when its file is gone or damaged."""
    while (secs := _read(path) - time.monotonic()) > 0:
        time.sleep(min(secs, LONGEST_SLEEP_SECS))


def end_when_passed(path: Path) -> None:
    """End this process with ``STATUS`` once the deadline has passed, at once if it has. Call before the model loads."""
    if has_passed(path):
        os._exit(STATUS)

    def watch() -> None:
        wait_until_passed(path)
        os._exit(STATUS)

    threading.Thread(target=watch, name="runner-deadline", daemon=True).start()


def _read(path: Path) -> float:
    try:
        (until,) = _FORMAT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return -math.inf
    return float(until)
