"""Token ids as database bytes: int32, little-endian, nothing else."""

import sys
from array import array
from collections.abc import Sequence


def pack(token_ids: Sequence[int]) -> bytes:
    """Encode token ids, 4 bytes each."""
    ids = array("i", token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tobytes()


def unpack(data: bytes | memoryview) -> list[int]:
    """Decode the bytes of ``pack`` (PostgreSQL returns a memoryview)."""
    ids = array("i")
    ids.frombytes(bytes(data))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tolist()
