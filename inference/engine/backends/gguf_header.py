"""Validation of GGUF headers, read with bounds before any native code sees the file.

Knows the container (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), nothing of models or tokens.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.engine.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_TENSORS = 65_536
MAX_KEYS = 65_536
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 64 << 20
MAX_ARRAY_ITEMS = 64 << 20
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 62  # of a tensor, whose bytes ggml counts in 63 bits
MAX_KIND = 255
# A vocabulary of this kind spells what it has no token for in bytes; llama.cpp ends the process where one is missing.
BYTES_MODEL = b"llama"
BYTE_TOKENS = {b"<0x%02X>" % byte: byte for byte in range(256)}
DEFAULT_ALIGNMENT = 32

STRING, ARRAY, UINT32 = 8, 9, 4
# Value type of the format -> bytes of one value.
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

# ggml tensor type -> (elements, bytes) of one block; types not listed are left to llama.cpp to refuse.
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}


@dataclass(frozen=True)
class ModelHeader:
    """Contents of a valid header."""

    version: int
    n_tensors: int
    n_keys: int
    data_start: int
    data_end: int  # bytes that the file needs at least
    architecture: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)  # every metadata value of type uint32

    @property
    def trained_context(self) -> int:
        """Tokens the model was trained for; 0 when the file has no value."""
        return next((value for name, value in self.numbers.items() if name.endswith(".context_length")), 0)


def check_model_file(path: Path) -> ModelHeader:
    """Return the header of a complete GGUF file; raises ``ModelFileError`` naming the file otherwise."""
    try:
        return _check(path)
    except OSError as error:
        raise ModelFileError(f"model file {path} cannot be read: {error.strerror}") from error


def _check(path: Path) -> ModelHeader:
    if not path.exists():
        raise ModelFileError(f"model file {path} does not exist")
    if not path.is_file():
        raise ModelFileError(f"model file {path} is not a file")
    if path.stat().st_size == 0:
        raise ModelFileError(f"model file {path} is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise ModelFileError(f"model file {path} is not a GGUF file: it begins with {data[:4]!r}")
        header = _HeaderReader(path, data).read()
        if header.data_end > len(data):
            raise ModelFileError(
                f"model file {path} is truncated: its tensors end at byte {header.data_end}, the file has {len(data)}"
            )
        return header


class _HeaderReader:
    """A cursor over the mapped file that never reads past its end nor trusts a count."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.offset = len(MAGIC)
        self.alignment = DEFAULT_ALIGNMENT
        self.architecture = ""
        self.numbers: dict[str, int] = {}
        self.vocabulary = b""  # its kind
        self.missing_bytes = set(range(256))  # those without a token

    def read(self) -> ModelHeader:
        version = self.unsigned(4)
        if version not in VERSIONS:
            raise self.damaged(f"GGUF version {version} is not supported")
        n_tensors = self.bounded("tensors", MAX_TENSORS)
        n_keys = self.bounded("metadata keys", MAX_KEYS)
        if n_tensors == 0:
            raise self.damaged("it holds no tensors")
        for _ in range(n_keys):
            self.skip_key_value()
        if self.vocabulary == BYTES_MODEL and self.missing_bytes:
            raise self.damaged(f"its vocabulary has no token for the byte 0x{min(self.missing_bytes):02X}")
        ends = [self.tensor_end() for _ in range(n_tensors)]
        start = -(-self.offset // self.alignment) * self.alignment
        return ModelHeader(version, n_tensors, n_keys, start, start + max(ends), self.architecture, self.numbers)

    def skip_key_value(self) -> None:
        key = self.string(MAX_KEY_BYTES)
        kind = self.unsigned(4)
        if key == b"general.alignment":
            if kind != UINT32:
                raise self.damaged(f"general.alignment has value type {kind}")
            self.alignment = self.unsigned(4)
            if self.alignment == 0 or self.alignment & (self.alignment - 1) or self.alignment > 1 << 20:
                raise self.damaged(f"an alignment of {self.alignment} is not possible")
        elif key == b"general.architecture" and kind == STRING:
            self.architecture = self.string(MAX_KEY_BYTES).decode("utf-8", "replace")
        elif key == b"tokenizer.ggml.model" and kind == STRING:
            self.vocabulary = self.string(MAX_KEY_BYTES)
        elif kind == UINT32:
            self.numbers[key.decode("utf-8", "replace")] = self.unsigned(4)
        elif kind == ARRAY:
            self.skip_array(is_vocabulary=key == b"tokenizer.ggml.tokens")
        else:
            self.skip_value(kind)

    def skip_array(self, *, is_vocabulary: bool) -> None:
        kind = self.unsigned(4)
        count = self.bounded("array items", MAX_ARRAY_ITEMS)
        if kind == STRING:
            start = self.offset
            self.skip_strings(count)
            if is_vocabulary:
                self.note_byte_tokens(start, count)
        elif kind in SCALAR_BYTES:
            self.skip(count * SCALAR_BYTES[kind])
        else:
            raise self.damaged(f"array items have unknown type {kind}")

    def skip_strings(self, count: int) -> None:
        """Skip strings with one call each, to read the length: a vocabulary has 262,144 of them."""
        data, offset, end = self.data, self.offset, len(self.data)
        length_of = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if offset + 8 > end:
                break
            length = length_of(data, offset)[0]
            offset += 8 + length
            if length > MAX_STRING_BYTES:
                raise self.damaged(f"a string of {length} bytes")
        else:
            self.offset = offset
            self.skip(0)
            return
        raise self.truncated()

    def note_byte_tokens(self, offset: int, count: int) -> None:
        """Note the bytes that have a token, among strings that were skipped already."""
        for _ in range(count):
            length = struct.unpack_from("<Q", self.data, offset)[0]
            offset += 8
            if length in (1, 6):
                token = self.data[offset : offset + length]
                self.missing_bytes.discard(token[0] if length == 1 else BYTE_TOKENS.get(token, -1))
            offset += length

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.string(MAX_STRING_BYTES)
        elif kind in SCALAR_BYTES:
            self.skip(SCALAR_BYTES[kind])
        else:
            raise self.damaged(f"a metadata value has unknown type {kind}")

    def tensor_end(self) -> int:
        """Read a tensor's description; returns the end of its data in bytes from the start of all data."""
        name = self.string(MAX_KEY_BYTES).decode("utf-8", "replace")
        n_dimensions = self.unsigned(4)
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise self.damaged(f"tensor {name} has {n_dimensions} dimensions")
        elements = 1
        for _ in range(n_dimensions):
            # Python's integers do not overflow; native readers of this field have had overflows.
            elements *= self.unsigned(8)
        kind = self.unsigned(4)
        offset = self.unsigned(8)
        if offset % self.alignment:
            raise self.damaged(f"tensor {name} begins at {offset}, which is not a multiple of {self.alignment}")
        block_elements, block_bytes = BLOCKS.get(kind, (1, 0))
        if not 0 < elements <= MAX_ELEMENTS or elements % block_elements or kind > MAX_KIND:
            raise self.damaged(f"tensor {name} has {elements} elements of type {kind}")
        return offset + elements // block_elements * block_bytes

    def string(self, limit: int) -> bytes:
        length = self.unsigned(8)
        if length > limit:
            raise self.damaged(f"a string of {length} bytes where {limit} are possible")
        start = self.offset
        self.skip(length)
        return self.data[start : self.offset]

    def bounded(self, items: str, limit: int) -> int:
        count = self.unsigned(8)
        if count > limit:
            raise self.damaged(f"it claims {count} {items}; more than {limit} are not plausible")
        return count

    def unsigned(self, n_bytes: int) -> int:
        start = self.offset
        self.skip(n_bytes)
        return int.from_bytes(self.data[start : self.offset], "little")

    def skip(self, n_bytes: int) -> None:
        self.offset += n_bytes
        if self.offset > len(self.data):
            raise self.truncated()

    def truncated(self) -> ModelFileError:
        return ModelFileError(
            f"model file {self.path} is truncated: it ends after {len(self.data)} bytes, within its header"
        )

    def damaged(self, defect: str) -> ModelFileError:
        return ModelFileError(f"model file {self.path} is damaged: {defect}")
