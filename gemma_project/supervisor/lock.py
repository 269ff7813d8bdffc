"""A kernel lock per data directory, for one supervisor; it ends with its process in any case."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from gemma_project.supervisor.errors import DataDirInUse, DataDirUnusable


class DataDirLock:
    """Holds ``<data>/serve.lock`` while entered. Children do not inherit the descriptor: it closes on exec."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._data_dir / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirUnusable(
                f"GEMMA_DATA_DIR={str(self._data_dir)!r} is not a directory that this user may write to "
                f"({error.strerror})"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirInUse(
                f"the data directory {self._data_dir} is in use by another `serve` (process {holder}); "
                "stop that one or set GEMMA_DATA_DIR to another directory"
            ) from None
        # The pid is for the message above only; the lock alone excludes.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
