"""KV states in transfer between runners: files in a RAM-backed folder, read once and removed.

They never leave the machine's memory, hence a length in place of a checksum, and the fingerprint of the settings that a
state depends on. Knows no sequences and no cells.
"""

import os
import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np

from inference.engine.kv_cache.radix_tree import Tokens

FRONT = struct.Struct("<8sI")
MAGIC = b"GEMMAMV1"
SUFFIX = ".move"
MAX_HEAD_BYTES = 64 << 20
TOKEN_BYTES = 4


class StateHeader(msgspec.Struct, frozen=True, array_like=True):
    """Description of a state, in front of it in the file."""

    fingerprint: str  # of model and settings
    token_bytes: bytes  # int32, little endian
    first_position: int  # lowest position that every layer still holds
    ephemeral: bool
    n_bytes: int  # of the state
    tags: list[str] = []  # owners, see ``purging``
    caller: str = ""  # who may reuse it, see ``cache_scope``; none can reuse a state of an earlier version

    @property
    def tokens(self) -> Tokens:
        return np.frombuffer(self.token_bytes, dtype=np.int32)


def write_state(path: Path, head: StateHeader, state: bytes) -> int:
    """Write a file with mode 0600 and return its size in bytes; raises ``OSError``, and then no file is left."""
    packed = msgspec.msgpack.encode(head)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines((FRONT.pack(MAGIC, len(packed)), packed, state))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return FRONT.size + len(packed) + len(state)


def consume_state(
    path: Path, fingerprint: str, *, maps: bool = False, keeps_file: bool = False
) -> tuple[StateHeader, bytes]:
    """Read a state file and remove it, also after an error, unless ``keeps_file``.

    ``maps``: the state is mapped instead of copied; its pages are freed with the last reference to it.
    Raises ``ValueError`` for an incomplete file or another fingerprint, ``OSError`` when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, fingerprint, maps=maps)
    finally:
        if not keeps_file:
            path.unlink(missing_ok=True)


def tags_of(path: Path) -> list[str]:
    """Return the owners that a file names, and leave it as it is. Raises ``ValueError``, ``OSError``."""
    with path.open("rb") as file:
        return _read_header(file).tags


def _read_header(file: BinaryIO) -> StateHeader:
    """Read the header and leave the file at its state."""
    front = file.read(FRONT.size)
    if len(front) < FRONT.size:
        raise ValueError("the file is truncated")
    magic, n_head = FRONT.unpack(front)
    if magic != MAGIC or n_head > MAX_HEAD_BYTES:
        raise ValueError("the file is not a state of this version")
    try:
        header = msgspec.msgpack.decode(file.read(n_head), type=StateHeader)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the header cannot be decoded: {error}") from error
    if len(header.token_bytes) % TOKEN_BYTES:
        raise ValueError("the tokens of the state are truncated")
    return header


def _read(file: BinaryIO, fingerprint: str, *, maps: bool) -> tuple[StateHeader, bytes]:
    """Read part by part: slicing the whole file would copy the state once more, which takes longer than reading it."""
    head = _read_header(file)
    # Callers take the length of a state, read it and drop it; a view supports all three.
    mapped = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))[file.tell() :] if maps else None
    state = file.read() if mapped is None else cast("bytes", mapped)
    if len(state) != head.n_bytes:
        raise ValueError(f"the state has {len(state)} of {head.n_bytes} bytes")
    if head.fingerprint != fingerprint:
        raise ValueError("the state belongs to another model or other settings")
    return head, state
