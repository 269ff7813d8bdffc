"""A private folder in a tmpfs for states that move: its room, and that nothing stays in it. Knows no sequences.

<GEMMA_SHM_DIR>/gemma-kv-<user>/<process>/<move>/<number>.move      ``lock`` is held while the process runs
"""

import fcntl
import logging
import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

log = logging.getLogger(__name__)

# Of what is free; the rest is for the sequences themselves, and for others.
SHARE_FOR_COPIES = 0.5
LOCK = "lock"


class StateFolder:
    """``wanted_bytes`` bounds the copies of one move; generation sequences are moved whatever they take."""

    def __init__(self, base: Path, wanted_bytes: int) -> None:
        """Raises OSError: the folder cannot be made, or is somebody else's."""
        self._wanted_bytes = wanted_bytes
        self._numbers = count(1)
        home = _private(user_folder(base))
        # One at a time: a folder whose lock is not taken yet would look left.
        with (home / LOCK).open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            for left in home.iterdir():
                _remove_if_dead(left)
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
            # Freed by the kernel with this process, however it ends.
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def max_bytes(self) -> int:
        """How much of copies there is room for now."""
        try:
            free_bytes = shutil.disk_usage(self.path).free
        except OSError:  # removed from outside, as some systems do when a user logs out
            return 0
        return min(self._wanted_bytes, int(free_bytes * SHARE_FOR_COPIES))

    def new(self) -> Path:
        """An empty folder for one move; where it cannot be made, no state finds room, and tokens are computed again."""
        folder = self.path / str(next(self._numbers))
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            log.warning("answers move without their states: %s", error)
        return folder

    def clear(self, *, but: Path | None = None) -> None:
        """Remove what no runner took in; ``but`` the folder of a move whose reader may not have come to it yet."""
        for folder in self.path.glob("*"):
            if folder.name != LOCK and folder != but:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def user_folder(base: Path) -> Path:
    """Of all processes of this user."""
    return base / f"gemma-kv-{os.getuid()}"


def remove_dead_folders(base: Path) -> None:
    """Remove what killed processes left, where nothing of ours may ever move again."""
    home = user_folder(base)
    if home.is_dir() and (home / LOCK).exists():
        with (home / LOCK).open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            for left in home.iterdir():
                _remove_if_dead(left)


def _private(path: Path) -> Path:
    """Others may write to the folder above: what they put in our place is refused."""
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{path} is not a private folder of this user; remove it, or set GEMMA_SHM_DIR")
    return path


def _remove_if_dead(folder: Path) -> None:
    """Left by a process that was killed: nobody holds its lock any more."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # the lock of them all, or one that is being removed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        log.info("removing states that a process left when it was killed: %s", folder)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
