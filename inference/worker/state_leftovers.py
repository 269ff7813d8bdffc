"""Files of KV states that no runner answers for: of one that was killed, of other settings, on their way nowhere."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inference.dispatch.state_folder import remove_dead_folders, user_folder
from inference.engine.kv_cache import disk_store, state_files
from inference.engine.kv_cache.purging import PurgedTags

log = logging.getLogger(__name__)


def remove_purged_states(purged: PurgedTags, *, cache_dir: Path, shm_dir: Path) -> int:
    """Remove the files that belong to purged owners alone from both folders, and torn ones; how many those were.

    To be called when no runner writes such files any more. Raises OSError.
    """
    remove_dead_folders(shm_dir)
    doomed = [*_purged_on_disk(cache_dir, purged), *_torn(cache_dir), *_purged_in_shm(shm_dir, purged)]
    for path in doomed:
        path.unlink(missing_ok=True)
    return len(doomed)


def _purged_on_disk(folder: Path, purged: PurgedTags) -> Iterator[Path]:
    for path in folder.glob(f"*{disk_store.SUFFIX}"):
        # Another runner may delete some meanwhile; what cannot be read its own next runner drops.
        with suppress(OSError, ValueError):
            if purged.covers(frozenset(disk_store.tags_of(path))):
                yield path


def _torn(folder: Path) -> Iterator[Path]:
    """Half-written files of processes that have ended; their names say whose they are."""
    for path in folder.glob(f"*{disk_store.TEMPORARY}"):
        pid = path.suffixes[0].removeprefix(".")
        if pid.isdecimal() and not _is_alive(int(pid)):
            yield path


def _purged_in_shm(shm_dir: Path, purged: PurgedTags) -> Iterator[Path]:
    for path in user_folder(shm_dir).glob(f"*/*/*{state_files.SUFFIX}"):
        with suppress(OSError, ValueError):
            if purged.covers(frozenset(state_files.header_of(path).tags)):
                yield path


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
