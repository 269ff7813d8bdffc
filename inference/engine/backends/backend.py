"""What the loop asks of a model on a device: decode a batch, forget cells, say what it still remembers.

Knows neither requests nor text; a slot is the number of a sequence inside the model's memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.engine.backends.vocabulary import Vocabulary

# One number per token of the vocabulary; may be changed in place, and is gone with the next decode.
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive tokens of one slot; the first stands at position ``start``, right behind what the slot holds."""

    slot: int
    start: int
    tokens: Sequence[int]
    n_outputs: int  # how many of its last tokens give logits


class KVCache(Protocol):
    """The cells of a model's context."""

    window: int  # positions a sliding-window layer looks back, its own included; 0 without such layers

    def remove(self, slot: int) -> None:
        """Forget everything the slot holds."""
        ...

    def trim(self, slot: int, length: int) -> None:
        """Keep the first ``length`` positions. The caller has checked ``first_position``: this does not."""
        ...

    def first_position(self, slot: int) -> int:
        """The first position that every layer still remembers."""
        ...

    def n_positions(self, slot: int) -> int:
        """How many positions the slot holds, counted by the model itself."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty ``target`` hold the first ``length`` positions of ``source`` as well, in the same cells.

        The caller has checked ``first_position`` of the source: this does not.
        """
        ...

    def save(self, slot: int) -> bytes:
        """Everything that is needed to go on at the slot's end, in another slot or process."""
        ...

    def load(self, slot: int, state: bytes) -> bool:
        """Bring a saved state into an empty slot; False, and the slot is empty, when no cells are free or the state
        is not of this model and these settings."""
        ...


class Backend(KVCache, Protocol):
    """One model on one device."""

    vocabulary: Vocabulary
    n_cells: int
    n_slots: int
    batch_size: int
    max_outputs: int  # rows of logits in one batch

    def decode(self, slices: Sequence[Slice]) -> list[Logits] | None:
        """Rows of logits of the slices that want them, in order; ``None`` when no cells are free, with nothing changed.

        Raises ``BackendError`` when the model fails; its memory cannot be trusted afterwards.
        """
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...
