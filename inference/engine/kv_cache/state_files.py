"""States on their way from one runner to another: files in a folder of RAM, read once.

They live for moments and never leave the machine's memory: a length tells whether one is whole, and the settings
whether it is of use to the reader. Knows no sequences and no cells.
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


class StateHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a file says of its state, which is behind it."""

    settings: str  # fingerprint of all that makes a state usable
    token_bytes: bytes  # int32, little endian
    first_position: int  # that every layer still remembers
    ephemeral: bool
    n_bytes: int  # of the state
    tags: list[str] = []  # owners, see ``purging``

    @property
    def tokens(self) -> Tokens:
        return np.frombuffer(self.token_bytes, dtype=np.int32)


def write_state(path: Path, head: StateHeader, state: bytes) -> int:
    """Readable by nobody else; returns the file's size. Raises ``OSError``, and then there is no file."""
    packed = msgspec.msgpack.encode(head)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in (FRONT.pack(MAGIC, len(packed)), packed, state):
                _write_all(file.fileno(), part)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return FRONT.size + len(packed) + len(state)


def take_state(path: Path, settings: str, *, maps: bool = False) -> tuple[StateHeader, bytes]:
    """Read a file, which is gone afterwards whatever it held.

    ``maps``: the state stays where it is, in the folder's memory, until nobody holds it any more; nothing is copied.
    Raises ``ValueError`` when it is not whole or of other settings, ``OSError`` when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _read(file, settings, maps=maps)
    finally:
        path.unlink(missing_ok=True)


def header_of(path: Path) -> StateHeader:
    """What a file says of its state, which stays there. Raises as ``take_state`` does."""
    with path.open("rb") as file:
        return _read_header(file)


def _read_header(file: BinaryIO) -> StateHeader:
    """Leaves the file at its state."""
    front = file.read(FRONT.size)
    if len(front) < FRONT.size:
        raise ValueError("it is cut off")
    magic, n_head = FRONT.unpack(front)
    if magic != MAGIC or n_head > MAX_HEAD_BYTES:
        raise ValueError("it is no state of this version")
    try:
        return msgspec.msgpack.decode(file.read(n_head), type=StateHeader)
    except msgspec.DecodeError as error:
        raise ValueError(f"its head cannot be read: {error}") from error


def _read(file: BinaryIO, settings: str, *, maps: bool) -> tuple[StateHeader, bytes]:
    """Part by part: a slice of the whole would copy the state once more, which takes longer than to read it."""
    head = _read_header(file)
    # Whoever has it measures, reads and drops it: a view does for that.
    mapped = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))[file.tell() :] if maps else None
    state = file.read() if mapped is None else cast("bytes", mapped)
    if len(state) != head.n_bytes:
        raise ValueError(f"it has {len(state)} of {head.n_bytes} bytes")
    if head.settings != settings:
        raise ValueError("it is of another model or other settings")
    return head, state


def _write_all(descriptor: int, data: bytes) -> None:
    """One call writes at most 2 GB, and less when the folder is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
