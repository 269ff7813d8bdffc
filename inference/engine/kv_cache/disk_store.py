"""Snapshots as files: one folder, one file each, written beside the loop by a thread of its own.

A file is a head (what it is, whose, the tokens) and a body (the state), each with a checksum. What is damaged or was
written under other settings is deleted; nothing here can make an answer wrong, or the loop wait for a disk.

    [ magic 8 ][ length of head 4 ][ checksum of head 16 ][ head: msgpack ][ body: state ]
"""

import logging
import os
import queue
import struct
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from inference.engine.kv_cache.snapshots import KVSnapshot

logger = logging.getLogger(__name__)

MAGIC = b"GEMMAKV2"
FRONT = struct.Struct("<8sI16s")
SUFFIX = ".kv"
TEMPORARY = ".tmp"
STALE_SECS = 60.0  # no write takes so long; younger ones may be another runner's
MAX_HEAD_BYTES = 64 << 20
# States that wait to be written; beyond that the disk is too slow, and what comes is not kept there.
MAX_WAITING_BYTES = 256 << 20


class _Head(msgspec.Struct, frozen=True):
    """Everything but the state."""

    settings: str  # fingerprint of all that makes a state usable
    tokens: bytes  # int32, little endian
    first_position: int
    n_bytes: int  # of the body
    checksum: bytes  # of the body
    tags: list[str]  # owners when it was written, see ``purging``


class DiskStore:
    """The ``Disk`` of one runner. The folder is the truth: its times of change say what was used last.

    Several runners may use one folder; each finds what was there when it began.
    """

    def __init__(self, folder: Path, max_bytes: int, settings: str) -> None:
        self._folder = folder
        self.max_bytes = max_bytes
        self._settings = settings
        self._waiting: dict[str, bytes] = {}  # key -> state, until the file is there
        self._orders: queue.SimpleQueue[KVSnapshot | None] = queue.SimpleQueue()
        self._gone: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._removed: set[str] = set()  # keys that the writer has under its hands, and nobody wants any more
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for left in folder.glob(f"*{TEMPORARY}"):
            if time.time() - left.stat().st_mtime > STALE_SECS:
                left.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run, name="snapshot writer", daemon=True)
        self._thread.start()

    # ---- the loop's side ----

    def found(self) -> list[KVSnapshot]:
        """Reads heads only."""
        n_dropped = 0
        snapshots = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            snapshot = self._look(path)
            if snapshot is None:
                path.unlink(missing_ok=True)
                n_dropped += 1
            else:
                snapshots.append(snapshot)
        if n_dropped:
            logger.warning("dropped %d files of %s: damaged, or of another model or settings", n_dropped, self._folder)
        return snapshots

    def write(self, snapshot: KVSnapshot, state: bytes, *, is_held: bool = False) -> bool:
        if snapshot.key in self._waiting:
            return True
        n_waiting = 0 if is_held else sum(map(len, list(self._waiting.values())))
        if len(state) > self.max_bytes or n_waiting > MAX_WAITING_BYTES:
            return False
        self._waiting[snapshot.key] = state
        self._orders.put(snapshot)
        return True

    def read(self, snapshot: KVSnapshot) -> bytes | None:
        waiting = self._waiting.get(snapshot.key)
        if waiting is not None:
            return waiting
        path = self._path(snapshot.key)
        try:
            state = _read_state(path, self._settings)
            os.utime(path)
        except (OSError, ValueError) as error:
            logger.warning("dropped snapshot %s: %s", path.name, error)
            path.unlink(missing_ok=True)
            return None
        return state

    def age(self, snapshot: KVSnapshot) -> None:
        with suppress(OSError):
            os.utime(self._path(snapshot.key), (0, 0))

    def remove(self, snapshot: KVSnapshot) -> None:
        if snapshot.key in self._waiting:
            self._removed.add(snapshot.key)
        self._path(snapshot.key).unlink(missing_ok=True)

    @property
    def has_removed_all(self) -> bool:
        return self._removed.isdisjoint(list(self._waiting))

    def gone(self) -> list[str]:
        keys = []
        while not self._gone.empty():
            keys.append(self._gone.get())
        return keys

    def close(self, timeout_secs: float) -> None:
        self._orders.put(None)
        self._thread.join(timeout_secs)

    def _look(self, path: Path) -> KVSnapshot | None:
        """The snapshot in a file, if it is whole and ours as far as its head tells."""
        try:
            with path.open("rb") as file:
                head = _read_head(file)
                is_whole = os.fstat(file.fileno()).st_size == file.tell() + head.n_bytes
        except (OSError, ValueError):
            return None
        if not is_whole or head.settings != self._settings:
            return None
        tokens = np.frombuffer(head.tokens, dtype=np.int32)
        snapshot = KVSnapshot(tokens, head.first_position, tags=frozenset(head.tags))
        return snapshot if snapshot.key == path.stem else None

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    # ---- the writer's side ----

    def _run(self) -> None:
        while (snapshot := self._orders.get()) is not None:
            state = self._waiting[snapshot.key]
            try:
                if snapshot.key not in self._removed:
                    self._write(snapshot, state)
            except OSError as error:
                logger.warning("snapshot %s was not written: %s", snapshot.key, error)
                self._gone.put(snapshot.key)
            finally:
                # Removed while it was written: the file goes before anybody is told that nothing waits.
                if snapshot.key in self._removed:
                    self._path(snapshot.key).unlink(missing_ok=True)
                    self._gone.put(snapshot.key)
                self._waiting.pop(snapshot.key, None)
                self._removed.discard(snapshot.key)

    def _write(self, snapshot: KVSnapshot, state: bytes) -> None:
        """Under another name first: a file under its own is whole. What a crash tears, the checksum finds."""
        tokens = np.ascontiguousarray(snapshot.tokens, dtype=np.int32).tobytes()
        head = msgspec.msgpack.encode(
            _Head(self._settings, tokens, snapshot.first_position, len(state), _checksum(state), sorted(snapshot.tags))
        )
        front = FRONT.pack(MAGIC, len(head), _checksum(head))
        self._make_room(len(front) + len(head) + len(state))
        path = self._path(snapshot.key)
        temporary = path.with_suffix(f".{os.getpid()}{TEMPORARY}")
        try:
            with temporary.open("wb") as file:
                temporary.chmod(0o600)
                for part in (front, head, state):
                    file.write(part)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, n_bytes: int) -> None:
        """Delete what was not used for longest until so much fits."""
        files = sorted(_sizes(self._folder), key=lambda each: each[1])
        n_held = sum(size for _, _, size in files)
        for path, _, size in files:
            if n_held + n_bytes <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            self._gone.put(path.stem)
            n_held -= size


def tags_of(path: Path) -> list[str]:
    """The owners that a file names. Raises ``ValueError`` when it is no snapshot, ``OSError`` when unreadable."""
    with path.open("rb") as file:
        return _read_head(file).tags


def _sizes(folder: Path) -> list[tuple[Path, int, int]]:
    """Path, time of last use and bytes of every file; another runner may delete some meanwhile."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((path, status.st_mtime_ns, status.st_size))
    return found


def _read_head(file: BinaryIO) -> _Head:
    """Leaves the file at its body; raises ``ValueError`` when this is no head, or a damaged one."""
    front = file.read(FRONT.size)
    if len(front) < FRONT.size:
        raise ValueError("it is cut off")
    magic, n_bytes, checksum = FRONT.unpack(front)
    if magic != MAGIC or n_bytes > MAX_HEAD_BYTES:
        raise ValueError("it is no snapshot of this version")
    head = file.read(n_bytes)
    if _checksum(head) != checksum:
        raise ValueError("its head is damaged")
    try:
        return msgspec.msgpack.decode(head, type=_Head)
    except msgspec.DecodeError as error:
        raise ValueError(f"its head is of another version: {error}") from error


def _read_state(path: Path, settings: str) -> bytes:
    """Raises ``ValueError`` when the file is not ours or not what was written, ``OSError`` when it cannot be read."""
    with path.open("rb") as file:
        head = _read_head(file)
        state = file.read()
    if head.settings != settings or _checksum(state) != head.checksum:
        raise ValueError("its state is damaged, or of other settings")
    return state


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
