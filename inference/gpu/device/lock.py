"""Which process tree of this machine may touch a card: an OS lock per card, freed by the kernel when its holder ends.

The lease says who should have the card, this who can have it. Knows no lease.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class GpuLock:
    """A held lock. Pass ``fd`` to the runner that uses the card (``pass_fds``) and close this one: the lock then lasts
    exactly as long as that process, also when whoever started it is killed first."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    def close(self) -> None:
        """Let go of it here; a process that was given ``fd`` goes on holding it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "GpuLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def gpu_lock(uuid: str, directory: Path) -> GpuLock | None:
    """The lock of the card, or None: another process has it. Raises OSError when the file cannot be opened.

    The file stays: whoever removed it would let two holders each lock a file of their own.
    """
    path = directory / f"gemma-gpu-{uuid}.lock"
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return GpuLock(fd, path)


def _open(path: Path) -> int:
    # In a directory with the sticky bit, opening somebody else's file with O_CREAT is refused by the kernel.
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
