"""Disk tier of the snapshot store: one file for each snapshot, written by a thread of its own.

Damaged files and those of another fingerprint are deleted; the engine loop never waits for a disk. Knows no file
format, see ``snapshot_files``.
"""

import logging
import os
import queue
import threading
import time
from contextlib import suppress
from pathlib import Path

from inference.engine.config import MEBIBYTE, EngineConfig
from inference.engine.kv_cache import snapshot_files
from inference.engine.kv_cache.entries import KVSnapshot
from inference.engine.kv_cache.snapshot_files import SUFFIX, TEMPORARY

log = logging.getLogger(__name__)

STALE_SECS = 60.0  # older than any write; younger temporary files may belong to another runner
# Queued states; beyond that the disk is too slow, and further states are not stored on it.
MAX_QUEUED_BYTES = 256 << 20


def open_disk_store(config: EngineConfig, fingerprint: str) -> "DiskStore | None":
    """Open the disk tier; the runner works without one, so that a failure is only logged."""
    if config.cache_dir is None or config.cache_disk_mb == 0 or not fingerprint:
        return None
    try:
        return DiskStore(config.cache_dir, config.cache_disk_mb * MEBIBYTE, fingerprint)
    except OSError as error:
        log.warning("kv cache on disk disabled folder=%s error=%s", config.cache_dir, error)
        return None


class DiskStore:
    """``SnapshotDisk`` in a folder; modification times of the files are the order of last use.

    Several runners may use one folder; each knows the files that were there when it started.
    """

    def __init__(self, folder: Path, max_bytes: int, fingerprint: str) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._fingerprint = fingerprint
        self._queued: dict[str, bytes] = {}  # key -> state, until its file is complete
        self._writes: queue.SimpleQueue[KVSnapshot | None] = queue.SimpleQueue()
        self._removed: queue.SimpleQueue[str] = queue.SimpleQueue()  # keys without a file, for ``take_removed``
        self._cancelled: set[str] = set()  # keys removed while their state is queued or being written
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for temporary in folder.glob(f"*{TEMPORARY}"):
            with suppress(OSError):
                if time.time() - temporary.stat().st_mtime > STALE_SECS:
                    temporary.unlink()
        self._thread = threading.Thread(target=self._run, name="snapshot writer", daemon=True)
        self._thread.start()

    # ---- called from the engine loop ----

    def read_index(self) -> list[KVSnapshot]:
        """Read the heads of all files and delete those that cannot be used."""
        n_dropped = 0
        snapshots = []
        for path in filter(Path.is_file, self._folder.glob(f"*{SUFFIX}")):
            try:
                snapshots.append(snapshot_files.read_snapshot(path, self._fingerprint))
            except (OSError, ValueError):
                _delete(path)
                n_dropped += 1
        if n_dropped:
            log.warning("damaged or outdated snapshots deleted folder=%s files=%d", self._folder, n_dropped)
        return snapshots

    def write(self, snapshot: KVSnapshot, state: bytes, *, is_retained: bool = False) -> bool:
        if snapshot.key in self._queued:
            return True
        n_queued = 0 if is_retained else sum(map(len, list(self._queued.values())))
        if len(state) > self.max_bytes or n_queued > MAX_QUEUED_BYTES:
            return False
        self._queued[snapshot.key] = state
        self._writes.put(snapshot)
        return True

    def read(self, snapshot: KVSnapshot) -> bytes | None:
        queued = self._queued.get(snapshot.key)
        if queued is not None:
            return queued
        path = self._path(snapshot.key)
        try:
            state = snapshot_files.read_state(path, self._fingerprint)
            os.utime(path)
        except (OSError, ValueError) as error:
            log.warning("unreadable snapshot deleted file=%s error=%s", path.name, error)
            _delete(path)
            return None
        return state

    def demote(self, snapshot: KVSnapshot) -> None:
        with suppress(OSError):
            os.utime(self._path(snapshot.key), (0, 0))

    def remove(self, snapshot: KVSnapshot) -> None:
        if snapshot.key in self._queued:
            self._cancelled.add(snapshot.key)
        _delete(self._path(snapshot.key))

    @property
    def has_removed_all(self) -> bool:
        return self._cancelled.isdisjoint(list(self._queued))

    def take_removed(self) -> list[str]:
        keys = []
        while not self._removed.empty():
            keys.append(self._removed.get())
        return keys

    def close(self, timeout_secs: float) -> None:
        self._writes.put(None)
        self._thread.join(timeout_secs)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    # ---- writer thread ----

    def _run(self) -> None:
        while (snapshot := self._writes.get()) is not None:
            state = self._queued[snapshot.key]
            try:
                if snapshot.key not in self._cancelled:
                    self._write(snapshot, state)
            except OSError as error:
                log.warning("snapshot not written key=%s error=%s", snapshot.key, error)
                self._removed.put(snapshot.key)
            finally:
                # Removed while it was written: the file goes before ``has_removed_all`` can become true.
                if snapshot.key in self._cancelled:
                    _delete(self._path(snapshot.key))
                    self._removed.put(snapshot.key)
                self._queued.pop(snapshot.key, None)
                self._cancelled.discard(snapshot.key)

    def _write(self, snapshot: KVSnapshot, state: bytes) -> None:
        parts = snapshot_files.encode(snapshot, state, self._fingerprint)
        n_bytes = sum(map(len, parts))
        files = sorted(_sizes(self._folder), key=lambda entry: entry[1])
        n_stored = sum(size for _, _, size in files)
        # The least recently used files make room.
        for path, _, size in files:
            if n_stored + n_bytes <= self.max_bytes:
                break
            _delete(path)
            self._removed.put(path.stem)
            n_stored -= size
        snapshot_files.write(self._path(snapshot.key), parts)


def _delete(path: Path) -> None:
    """Delete a file; what is no file, such as a folder of that name, is left to the operator."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("file not deleted file=%s error=%s", path, error)


def _sizes(folder: Path) -> list[tuple[Path, int, int]]:
    """List (path, time of last use in ns, bytes) of every file; another runner may delete some meanwhile."""
    sizes = []
    for path in filter(Path.is_file, folder.glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):
            status = path.stat()
            sizes.append((path, status.st_mtime_ns, status.st_size))
    return sizes
