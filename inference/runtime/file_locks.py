"""File locks that a process holds until it exits, as other processes of the machine see them."""

import fcntl
import os
from pathlib import Path


def is_free(path: Path) -> bool:
    """Return whether the file exists and no process holds its lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # never on this machine, or removed in an orderly stop or by another process that found it free
        return False
    try:
        # Shared, so that processes that look at the same time do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
