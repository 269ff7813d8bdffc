"""Removal of KV state files that no runner removes: its process was killed, its settings have changed, or a migration
was interrupted."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from inference.dispatch.state_folder import remove_dead_folders, user_folder
from inference.engine.kv_cache import snapshot_files, state_files
from inference.engine.kv_cache.purging import PurgedTags
from inference.runtime.processes import is_running

log = logging.getLogger(__name__)


def remove_purged_states(purged: PurgedTags, *, cache_dir: Path, shm_dir: Path) -> int:
    """Remove files whose tags are all purged, and half-written ones, from both folders; return their number.

    To be called when no runner writes such files any more. Raises OSError.
    """
    remove_dead_folders(shm_dir)
    snapshots = cache_dir.glob(f"*{snapshot_files.SUFFIX}")
    moving_states = user_folder(shm_dir).glob(f"*/*/*{state_files.SUFFIX}")
    removable = [
        *_purged(snapshots, snapshot_files.tags_of, purged),
        *_purged(moving_states, state_files.tags_of, purged),
    ]
    for path in filter(Path.is_file, cache_dir.glob(f"*{snapshot_files.TEMPORARY}")):
        # Half-written; its name holds the id of the process that writes it.
        pid = path.suffixes[0].removeprefix(".")
        if pid.isdecimal() and not is_running(int(pid)):
            removable.append(path)
    for path in removable:
        path.unlink(missing_ok=True)
    return len(removable)


def _purged(paths: Iterable[Path], tags_of: Callable[[Path], list[str]], purged: PurgedTags) -> Iterator[Path]:
    for path in filter(Path.is_file, paths):
        # Another runner may delete some meanwhile; a file that cannot be read is dropped by the next runner.
        with suppress(OSError, ValueError):
            if purged.covers(frozenset(tags_of(path))):
                yield path
