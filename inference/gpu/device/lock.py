"""Lock of a GPU among the process trees of this machine: a file lock that the kernel frees when its holder exits.

The lease decides who should use the GPU, the lock who can. Knows no lease.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class GpuLock:
    """A held lock. Pass ``fd`` to the runner that uses the GPU (``pass_fds``) and close this one: the lock then lasts
    exactly as long as that process, even if its parent is killed first."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self.path = path

    def close(self) -> None:
        """Close the descriptor here; a process that inherited ``fd`` still holds the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "GpuLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def gpu_lock(uuid: str, directory: Path) -> GpuLock | None:
    """Take the lock of the GPU; None: another process holds it. Raises OSError when the file cannot be opened.

    The file is never removed: otherwise two holders could each lock a file of that name.
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
    # With the sticky bit on the directory, the kernel refuses O_CREAT on another user's file.
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
