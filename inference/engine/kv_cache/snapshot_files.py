"""File format of the disk tier: a head (fingerprint, tokens) and a body (the state), each with a checksum.

    [ magic 8 ][ length of head 4 ][ checksum of head 16 ][ head: msgpack ][ body: state ]

Knows no folder and no order of use, see ``disk_store``.
"""

import os
import struct
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from inference.engine.kv_cache.entries import KVSnapshot

MAGIC = b"GEMMAKV3"
FRONT = struct.Struct("<8sI16s")
SUFFIX = ".kv"
TEMPORARY = ".tmp"
MAX_HEAD_BYTES = 64 << 20


class SnapshotHead(msgspec.Struct, frozen=True):
    """Description of the state in the body."""

    settings: str  # fingerprint of model and settings
    tokens: bytes  # int32, little endian
    first_position: int
    n_bytes: int  # of the body
    checksum: bytes  # of the body
    tags: list[str]  # owners when it was written, see ``purging``
    caller: str  # who may reuse it, see ``cache_scope``


def encode(snapshot: KVSnapshot, state: bytes, fingerprint: str) -> Sequence[bytes]:
    """Return the parts of a file, in order."""
    tokens = np.ascontiguousarray(snapshot.tokens, dtype=np.int32).tobytes()
    head = SnapshotHead(
        fingerprint,
        tokens,
        snapshot.first_position,
        len(state),
        _checksum(state),
        sorted(snapshot.tags),
        snapshot.caller,
    )
    packed = msgspec.msgpack.encode(head)
    return FRONT.pack(MAGIC, len(packed), _checksum(packed)), packed, state


def write(path: Path, parts: Sequence[bytes]) -> None:
    """Write under a temporary name and rename: a crash leaves no incomplete file under ``path``. Raises ``OSError``."""
    temporary = path.with_suffix(f".{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            temporary.chmod(0o600)
            for part in parts:
                file.write(part)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_snapshot(path: Path, fingerprint: str) -> KVSnapshot:
    """Read the head of a file whose body has its full length, unchecked otherwise. Raises as ``read_state`` does."""
    with path.open("rb") as file:
        head = _parse_head(file)
        if os.fstat(file.fileno()).st_size != file.tell() + head.n_bytes:
            raise ValueError("the state is truncated")
    tokens = np.frombuffer(head.tokens, dtype=np.int32)
    snapshot = KVSnapshot(tokens, head.first_position, tags=frozenset(head.tags), caller=head.caller)
    if head.settings != fingerprint or snapshot.key != path.stem:
        raise ValueError("the state belongs to other settings, or the file to another name")
    return snapshot


def read_state(path: Path, fingerprint: str) -> bytes:
    """Return the state; raises ``ValueError`` for damage or another fingerprint, ``OSError`` for a failed read."""
    with path.open("rb") as file:
        head = _parse_head(file)
        state = file.read()
    if head.settings != fingerprint or _checksum(state) != head.checksum:
        raise ValueError("the state is damaged or belongs to other settings")
    return state


def tags_of(path: Path) -> list[str]:
    """Return the owners that a file names. Raises ``ValueError`` when it is no snapshot, ``OSError``."""
    with path.open("rb") as file:
        return _parse_head(file).tags


def _parse_head(file: BinaryIO) -> SnapshotHead:
    """Read the head and leave the file at its body; raises ``ValueError`` for a damaged or foreign one."""
    front = file.read(FRONT.size)
    if len(front) < FRONT.size:
        raise ValueError("the file is truncated")
    magic, n_bytes, checksum = FRONT.unpack(front)
    if magic != MAGIC or n_bytes > MAX_HEAD_BYTES:
        raise ValueError("the file is not a snapshot of this version")
    head = file.read(n_bytes)
    if _checksum(head) != checksum:
        raise ValueError("the head is damaged")
    try:
        return msgspec.msgpack.decode(head, type=SnapshotHead)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the head belongs to another version: {error}") from error


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
