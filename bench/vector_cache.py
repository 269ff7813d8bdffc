"""Vectors kept in a file between runs, since computing them takes most of a run."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from tqdm import tqdm

from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import EncoderInput, Vectors

GROUP = 256  # texts that an interruption loses at most


class VectorCache:
    """Takes the place of ``embedding``'s functions for passages."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.database.execute("CREATE TABLE IF NOT EXISTS vector (key BLOB PRIMARY KEY, vector BLOB)")
        self.compute: Callable[[Sequence[EncoderInput], str], Vectors | None] = embedding.embed_passages

    def embed(self, inputs: Sequence[EncoderInput], encoding: str) -> Vectors:
        keys = [hashlib.sha256(f"{encoding}\0{item.context}\0{item.text}".encode()).digest() for item in inputs]
        missing = [number for number, key in enumerate(keys) if self._stored(key) is None]
        groups = range(0, len(missing), GROUP)
        for start in tqdm(groups, desc="vectors", leave=False, mininterval=2, disable=len(groups) < 2):
            numbers = missing[start : start + GROUP]
            vectors = self.compute([inputs[number] for number in numbers], encoding)
            if vectors is None:
                raise RuntimeError(embedding.unavailable_reason(encoding))
            rows = [(keys[number], vector.tobytes()) for number, vector in zip(numbers, vectors, strict=True)]
            self.database.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?)", rows)
        return np.array([np.frombuffer(self._stored(key) or b"", np.float32) for key in keys])

    def embed_in_background(self, inputs: Sequence[EncoderInput], encoding: str) -> "Future[Vectors | None]":
        future: Future[Vectors | None] = Future()
        future.set_result(self.embed(inputs, encoding))
        return future

    def _stored(self, key: bytes) -> bytes | None:
        row: tuple[bytes] | None = self.database.execute("SELECT vector FROM vector WHERE key = ?", [key]).fetchone()
        return row[0] if row else None
