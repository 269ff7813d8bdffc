"""The liveness lock of a worker: a file that it keeps locked, so that processes of this machine see it die.

The kernel frees the lock with its process, however that ends: the rows of a killed worker are taken over without
waiting for its heartbeat to count as silent. Workers on other machines, and those that hang, have the heartbeat alone.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Container
from pathlib import Path

from django.conf import settings

from inference.runtime.file_locks import is_free

log = logging.getLogger(__name__)


def _folder() -> Path:
    return Path(settings.GEMMA_DATA_DIR) / "workers"


class LivenessLock:
    """Held from ``acquire`` to ``release``. Children do not inherit the descriptor: it closes on exec."""

    def __init__(self, name: str) -> None:
        self._path = _folder() / name
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Create and lock the file. Where that fails only the heartbeat is left, as for another machine."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Locked before it gets its name: a process that looks in between would find it free.
            unnamed = self._path.with_name(f".{self._path.name}")
            self._descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._path)
        except OSError as error:
            log.warning("no liveness lock, a crash is noticed by the heartbeat only error=%s", error)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_dead(worker: str) -> bool:
    """Return whether the worker ran on this machine and its process is gone; False when that is unknown."""
    # The folder may be shared with machines whose locks are not visible here.
    return worker.startswith(f"{socket.gethostname()}:") and is_free(_folder() / worker)


def remove_free_locks(keep: Container[str]) -> None:
    """Remove the files of dead workers, except those named in ``keep``, which still have rows to be taken over."""
    folder = _folder()
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".") and path.name not in keep and is_free(path):
            path.unlink(missing_ok=True)
