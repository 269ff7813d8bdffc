"""Passages as arrays: what filters look at, and their vectors. Exact search, no approximation.

A snapshot never changes. Knows no database; ``index`` fills it.
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


class Codes:
    """Small numbers for texts that repeat. Only ever grows."""

    def __init__(self) -> None:
        self.by_text: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.by_text.setdefault(text, len(self.by_text))

    def known(self, texts: Iterable[str]) -> list[int]:
        return [self.by_text[text] for text in texts if text in self.by_text]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One entry a row. ``owner``, ``kind``, ``speaker`` and ``emotion`` are codes, ``transcript`` is 0 for notes."""

    id: Ids
    owner: NDArray[np.int32]
    kind: NDArray[np.int32]
    speaker: NDArray[np.int32]
    emotion: NDArray[np.int32]
    transcript: Ids
    said_at: Ids  # unix seconds
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
    """Rows ascend by id. ``vectors`` is a buffer that may be longer: a later snapshot's rows follow in it."""

    columns: Columns
    vectors: Vectors
    codes: Codes
    last_passage: int = 0
    last_change: int = 0

    @classmethod
    def empty(cls) -> "VectorSnapshot":
        return cls(NO_COLUMNS, np.zeros((0, DIMENSIONS), np.float32), Codes())

    def __len__(self) -> int:
        return len(self.columns.id)

    def has(self, column: str, texts: Iterable[str]) -> Mask:
        """Which rows hold one of the texts in a column of codes."""
        held: NDArray[np.int32] = getattr(self.columns, column)
        return np.isin(held, self.codes.known(texts))

    def texts(self, column: str, rows: Mask) -> list[str]:
        """The different texts that these rows hold."""
        held: NDArray[np.int32] = getattr(self.columns, column)
        n_held = np.bincount(held[rows], minlength=len(self.codes.by_text))
        return [text for text, code in list(self.codes.by_text.items()) if code < len(n_held) and n_held[code]]

    def rows_of(self, ids: Ids) -> tuple[Rows, Mask]:
        """A row for each id, and whether it is really that id's."""
        if not len(self):
            return np.zeros(len(ids), np.intp), np.zeros(len(ids), np.bool_)
        rows = np.minimum(np.searchsorted(self.columns.id, ids), len(self) - 1)
        return rows, self.columns.id[rows] == ids

    def similarities(self, vector: Vectors, allowed: Mask) -> tuple[Rows, Scores]:
        """The allowed rows that have a vector, and their cosine with ``vector``."""
        rows = np.flatnonzero(allowed & self.columns.has_vector)
        matrix = self.vectors[: len(self)]
        # To copy a few rows costs less than to multiply all.
        if len(rows) * 4 < len(self):
            return rows, matrix[rows] @ vector
        return rows, (matrix @ vector)[rows]
