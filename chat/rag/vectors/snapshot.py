"""Immutable snapshot of the passages as arrays: filter columns and vectors, with exact similarity search.

Knows no database; ``index`` fills it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chat.rag.vectors.embedding import DIMENSIONS, Vectors

Ids = NDArray[np.int64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
Scores = NDArray[np.float32]


class TextCodes:
    """Dictionary encoding of repeated texts; grows only."""

    def __init__(self) -> None:
        self.by_text: dict[str, int] = {}

    def encode(self, text: str) -> int:
        return self.by_text.setdefault(text, len(self.by_text))

    def existing(self, texts: Iterable[str]) -> list[int]:
        """Return the codes of those texts that have one."""
        return [self.by_text[text] for text in texts if text in self.by_text]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Filter columns, one entry per row; texts are dictionary codes, ``transcript`` is 0 for notes."""

    id: Ids
    owner: NDArray[np.int32]
    kind: NDArray[np.int32]
    speaker: NDArray[np.int32]
    emotion: NDArray[np.int32]
    transcript: Ids
    said_at: Ids  # unix seconds
    n_terms: NDArray[np.int32]
    has_vector: Mask
    is_alive: Mask


COLUMN_TYPES = {
    "id": np.int64,
    "transcript": np.int64,
    "said_at": np.int64,
    "has_vector": np.bool_,
    "is_alive": np.bool_,
}


def columns(**values: Iterable[int]) -> Columns:
    return Columns(**{name: np.array(list(value), COLUMN_TYPES.get(name, np.int32)) for name, value in values.items()})


NO_COLUMNS = columns(**dict.fromkeys(Columns.__dataclass_fields__, ()))


@dataclass(frozen=True)
class VectorSnapshot:
    """Rows in ascending order of id; ``vectors`` is a shared buffer in which rows of later snapshots may follow."""

    columns: Columns
    vectors: Vectors
    codes: TextCodes
    last_passage: int = 0
    last_change: int = 0
    encoding: str = ""  # of the vectors

    @classmethod
    def empty(cls) -> "VectorSnapshot":
        return cls(NO_COLUMNS, np.zeros((0, DIMENSIONS), np.float32), TextCodes())

    def __len__(self) -> int:
        return len(self.columns.id)

    def has(self, column: str, texts: Iterable[str]) -> Mask:
        """Return the rows whose ``column`` is one of ``texts``."""
        values: NDArray[np.int32] = getattr(self.columns, column)
        return np.isin(values, self.codes.existing(texts))

    def texts(self, column: str, rows: Mask) -> list[str]:
        """Return the distinct texts of ``column`` in ``rows``."""
        values: NDArray[np.int32] = getattr(self.columns, column)
        counts = np.bincount(values[rows], minlength=len(self.codes.by_text))
        return [text for text, code in list(self.codes.by_text.items()) if code < len(counts) and counts[code]]

    def rows_of(self, ids: Ids) -> tuple[Rows, Mask]:
        """Return a row per id, and a mask of the ids that are present."""
        if not len(self):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        rows = np.minimum(np.searchsorted(self.columns.id, ids), len(self) - 1)
        return rows, self.columns.id[rows] == ids

    def similarities(self, vector: Vectors, allowed: Mask) -> tuple[Rows, Scores]:
        """Return the allowed rows that have a vector, and their cosine similarity with ``vector``."""
        rows = np.flatnonzero(allowed & self.columns.has_vector)
        matrix = self.vectors[: len(self)]
        # Copying a few rows is cheaper than multiplying all.
        if len(rows) * 4 < len(self):
            return rows, matrix[rows] @ vector
        return rows, (matrix @ vector)[rows]
