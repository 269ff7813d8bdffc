"""A GGUF file of Gemma 3 4B's shape with random weights: its speed and its memory without its 2.5 GB download.

    python -m bench.random_gguf SOURCE TARGET [--layers 34]

Vocabulary and metadata are those of SOURCE, a Gemma 3 file. Its answers are nonsense; its costs are those of the shape.
"""

import argparse
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

F32, Q4_0 = 0, 2
BLOCK, BLOCK_BYTES = 32, 18
ALIGNMENT = 32
STRING, ARRAY, UINT32 = 8, 9, 4
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
CHUNK_BLOCKS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Gemma 3 4B's, but for the number of layers."""

    n_layers: int = 34
    width: int = 2560
    inner: int = 10_240
    n_heads: int = 8
    n_kv_heads: int = 4
    head: int = 256
    window: int = 1024

    @property
    def numbers(self) -> dict[str, int]:
        """Metadata that differs from the source's."""
        return {
            "gemma3.block_count": self.n_layers,
            "gemma3.embedding_length": self.width,
            "gemma3.feed_forward_length": self.inner,
            "gemma3.attention.head_count": self.n_heads,
            "gemma3.attention.head_count_kv": self.n_kv_heads,
            "gemma3.attention.key_length": self.head,
            "gemma3.attention.value_length": self.head,
            "gemma3.attention.sliding_window": self.window,
        }

    def tensors(self, n_vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Return names and sizes, the fastest dimension first; a tensor of one dimension is a norm."""
        query, key = self.n_heads * self.head, self.n_kv_heads * self.head
        yield "token_embd.weight", (self.width, n_vocabulary)
        yield "output_norm.weight", (self.width,)
        for layer in range(self.n_layers):
            block = f"blk.{layer}."
            for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
                yield f"{block}{name}.weight", (self.width,)
            for name in ("attn_q_norm", "attn_k_norm"):
                yield f"{block}{name}.weight", (self.head,)
            yield f"{block}attn_q.weight", (self.width, query)
            yield f"{block}attn_k.weight", (self.width, key)
            yield f"{block}attn_v.weight", (self.width, key)
            yield f"{block}attn_output.weight", (query, self.width)
            yield f"{block}ffn_gate.weight", (self.width, self.inner)
            yield f"{block}ffn_up.weight", (self.width, self.inner)
            yield f"{block}ffn_down.weight", (self.inner, self.width)


def write_random(source: Path, target: Path, shape: Shape) -> None:
    """Under another name first: a file with the target's name is whole."""
    draft = target.with_suffix(".draft")
    with source.open("rb") as given, draft.open("wb") as file:
        pairs = _metadata(given)
        n_vocabulary = _array_length(pairs["tokenizer.ggml.tokens"])
        pairs |= {name: struct.pack("<II", UINT32, value) for name, value in shape.numbers.items()}
        pairs["general.name"] = struct.pack("<I", STRING) + _text(f"random weights, {shape.n_layers} layers")
        tensors = list(shape.tensors(n_vocabulary))
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)))
        for name, value in pairs.items():
            file.write(_text(name) + value)
        _describe(file, tensors)
        draw = np.random.default_rng(1)
        for _, sizes in tqdm(tensors, desc=target.name, leave=False):
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            _weights(file, sizes, draw)
    draft.replace(target)


def _describe(file: BinaryIO, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    offset = 0
    for name, sizes in tensors:
        kind = F32 if len(sizes) == 1 else Q4_0
        file.write(_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset))
        offset += _n_bytes(sizes)
        offset += -offset % ALIGNMENT


def _n_bytes(sizes: tuple[int, ...]) -> int:
    return 4 * sizes[0] if len(sizes) == 1 else int(np.prod(sizes)) // BLOCK * BLOCK_BYTES


def _weights(file: BinaryIO, sizes: tuple[int, ...], draw: np.random.Generator) -> None:
    if len(sizes) == 1:
        file.write(np.ones(sizes[0], dtype="<f4").tobytes())
        return
    # A block of Q4_0 is a scale and 32 numbers of four bits; such scales keep all activations finite.
    scale = np.float16(0.3 / np.sqrt(sizes[0]))
    n_left = int(np.prod(sizes)) // BLOCK
    while n_left:
        n_blocks = min(n_left, CHUNK_BLOCKS)
        blocks = draw.integers(0, 256, (n_blocks, BLOCK_BYTES), dtype=np.uint8)
        blocks[:, :2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
        file.write(blocks.tobytes())
        n_left -= n_blocks


def _metadata(file: BinaryIO) -> dict[str, bytes]:
    """Every key with its value as it stands in the file, type included."""
    magic, version, _, n_pairs = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"{file.name} is no GGUF file of version 2 or 3")
    pairs = {}
    for _ in range(n_pairs):
        name = file.read(struct.unpack("<Q", file.read(8))[0]).decode()
        began = file.tell()
        _skip(file, struct.unpack("<I", file.read(4))[0])
        n_bytes = file.tell() - began
        file.seek(began)
        pairs[name] = file.read(n_bytes)
    return pairs


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == STRING:
        file.seek(struct.unpack("<Q", file.read(8))[0], 1)
    elif kind == ARRAY:
        inner, n_items = struct.unpack("<IQ", file.read(12))
        if inner in SCALAR_BYTES:
            file.seek(SCALAR_BYTES[inner] * n_items, 1)
            return
        for _ in range(n_items):
            _skip(file, inner)
    else:
        file.seek(SCALAR_BYTES[kind], 1)


def _array_length(value: bytes) -> int:
    return int(struct.unpack_from("<IIQ", value)[2])


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--layers", type=int, default=Shape.n_layers)
    arguments = parser.parse_args()
    write_random(arguments.source, arguments.target, Shape(n_layers=arguments.layers))


if __name__ == "__main__":
    main()
