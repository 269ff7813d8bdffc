"""Whether a worker of this machine has died: a file that it keeps locked for as long as it lives.

The kernel frees a lock with its process, however that ends, so that a killed worker's rows need not wait until its
heartbeat counts as stopped. Of workers elsewhere, and of those that hang, the heartbeat alone tells.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Container
from pathlib import Path

from django.conf import settings

log = logging.getLogger(__name__)


def _folder() -> Path:
    return Path(settings.GEMMA_DATA_DIR) / "workers"


class LivenessLock:
    """Held from ``begin`` to ``end``. Children do not inherit the descriptor: it closes on exec."""

    def __init__(self, name: str) -> None:
        self._path = _folder() / name
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Where no file can be locked, it is as on another machine."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Locked before it has its name: nobody may find it free in between.
            unnamed = self._path.with_name(f".{self._path.name}")
            self._descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._path)
        except OSError as error:
            log.warning("a death of this worker will be noticed by its heartbeat only: %s", error)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_dead(worker: str) -> bool:
    """Whether the worker of that name was of this machine and is gone; False when nobody here can tell."""
    # The folder may be shared with machines whose locks do not show here.
    return worker.startswith(f"{socket.gethostname()}:") and _is_free(_folder() / worker)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # not of this machine, or it ended properly
        return False
    try:
        # Shared, so that of several who ask at the same time none takes another for the living worker.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def tidy(keep: Container[str]) -> None:
    """Remove what the dead have left, but for those whose rows are still to be taken from them."""
    folder = _folder()
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".") and path.name not in keep and _is_free(path):
            path.unlink(missing_ok=True)
