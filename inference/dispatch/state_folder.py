"""Private folder in a tmpfs for states in transfer and checkpoints: its free space, and its removal. Reads no state.

<GEMMA_SHM_DIR>/gemma-kv-<user>/<folder>/<move>/<pid>-<number>.move      ``lock`` is held while the process runs
"""

import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from inference.config.free_memory import free_ram
from inference.dispatch.generation_state import ActiveGeneration

log = logging.getLogger(__name__)

SHARE_FOR_COPIES = 0.5  # of the free space; the rest is for active sequences and other users of the tmpfs
SHARE_FOR_CHECKPOINTS = 0.25  # of the free memory: a tmpfs may promise more space than there is memory
LOCK = "lock"


class StateFolder:
    """``wanted_bytes`` bounds the copies of one transfer; active sequences are transferred at any size."""

    def __init__(self, base: Path, wanted_bytes: int = sys.maxsize) -> None:
        """Raises OSError: the folder cannot be made, or belongs to another user."""
        self._wanted_bytes = wanted_bytes
        self._numbers = count(1)
        home = user_folder(base)
        home.mkdir(mode=0o700, exist_ok=True)
        status = home.lstat()
        # The parent is writable for all: another user may have made the folder.
        if home.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{home} is not a private folder of this user; remove it, or set GEMMA_SHM_DIR")
        # One process at a time: a folder whose lock is not taken yet would look abandoned.
        with (home / LOCK).open("w") as home_lock:
            fcntl.flock(home_lock, fcntl.LOCK_EX)
            for folder in home.iterdir():
                _remove_if_abandoned(folder)
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
            # The kernel frees the lock when this process exits, in any way.
            self._lock: int | None = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def max_bytes(self) -> int:
        """Bytes that copies may take now."""
        try:
            free_bytes = shutil.disk_usage(self.path).free
        except OSError:  # removed by the system, as some do when a user logs out
            return 0
        return min(self._wanted_bytes, int(free_bytes * SHARE_FOR_COPIES))

    def new(self) -> Path:
        """Make an empty folder for one transfer. Without it no state finds room, and tokens are computed again."""
        folder = self.path / str(next(self._numbers))
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            log.warning("answers move without their states error=%s", error)
        return folder

    def clear(self, *, but: Path | None = None) -> None:
        """Remove files that no runner imported; ``but``: a folder whose files may not have been read yet."""
        for folder in self.path.glob("*"):
            if folder.name != LOCK and folder != but:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder; a second call has no effect, since the number of the lock may be another file by then."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class CheckpointFiles:
    """KV states of prompts in progress, by which the next runner continues if one dies: one file for a generation.

    In a folder of their own, which no hand-over clears; none are written without a folder.
    """

    def __init__(self, folder: StateFolder | None) -> None:
        self._folder = folder
        self.path = "" if folder is None else str(folder.new())

    @property
    def max_bytes(self) -> int:
        """Room for all files together; 0: none are written."""
        if self._folder is None:
            return 0
        return min(self._folder.max_bytes, int(free_ram().n_bytes * SHARE_FOR_CHECKPOINTS))

    def replace(self, generation: ActiveGeneration, path: str) -> None:
        """Take in a new file of a generation; the earlier one is removed."""
        self.remove(generation)
        generation.location.checkpoint_path = path

    def remove(self, generation: ActiveGeneration) -> None:
        if generation.location.checkpoint_path:
            Path(generation.location.checkpoint_path).unlink(missing_ok=True)
            generation.location.checkpoint_path = ""

    def runner_exited(self, pid: int | None, generations: Iterable[ActiveGeneration]) -> None:
        """Remove files of that process which belong to no generation: it may have been writing when it was killed."""
        checkpoint_paths = {generation.location.checkpoint_path for generation in generations}
        for path in Path(self.path).glob(f"{pid}-*") if self.path else ():
            if str(path) not in checkpoint_paths:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.close()


def user_folder(base: Path) -> Path:
    """Return the folder that all processes of this user share."""
    return base / f"gemma-kv-{os.getuid()}"


def remove_dead_folders(base: Path) -> None:
    """Remove the states of killed processes; on an installation without a GPU no StateFolder ever does."""
    home = user_folder(base)
    if home.is_dir() and (home / LOCK).exists():
        with (home / LOCK).open("w") as home_lock:
            fcntl.flock(home_lock, fcntl.LOCK_EX)
            for folder in home.iterdir():
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove the folder of a process that was killed: its lock is free."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # the lock file of ``home``, or a folder that is being removed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        log.info("removing the states of a killed process folder=%s", folder)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
