"""Interface of a model on a device: decoding, and the cells of its KV cache.

Knows neither requests nor text; a slot is the number of a sequence inside the KV cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.engine.backends.step_watch import StepWatch
from inference.engine.backends.vocabulary import Vocabulary

# Shape (n_tokens,); may be changed in place, and is overwritten by the next decode.
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive tokens of one slot; ``start`` is the position of the first, directly behind those the slot holds."""

    slot: int
    start: int
    tokens: Sequence[int]
    n_outputs: int  # number of its last tokens with logits


class KVCache(Protocol):
    """Cells of a model's context."""

    window: int  # positions a sliding-window layer looks back, its own included; 0 without such layers

    def remove(self, slot: int) -> None:
        """Empty the slot."""
        ...

    def trim(self, slot: int, length: int) -> None:
        """Keep the first ``length`` positions. Does not check ``first_position``: callers must."""
        ...

    def first_position(self, slot: int) -> int:
        """Return the lowest position that every layer still holds."""
        ...

    def n_positions(self, slot: int) -> int:
        """Return the number of positions in the slot, counted by the model itself."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Share the first ``length`` positions of ``source`` with the empty ``target``, in the same cells.

        Does not check ``first_position`` of the source: callers must.
        """
        ...

    def save(self, slot: int) -> bytes:
        """Return the state needed to continue at the slot's end, in another slot or process."""
        ...

    def load(self, slot: int, state: bytes) -> bool:
        """Load a saved state into an empty slot; False, with the slot still empty, when no cells are free or the state
        belongs to another model or other settings."""
        ...


class Backend(KVCache, Protocol):
    """Model on a device."""

    vocabulary: Vocabulary
    watch: StepWatch
    n_cells: int
    n_slots: int
    batch_size: int
    max_outputs: int  # rows of logits in one batch

    def decode(self, slices: Sequence[Slice]) -> list[Logits] | None:
        """Return the rows of logits of all slices in order; ``None``, with nothing changed, when no cells are free.

        Raises ``StepAborted`` after ``watch.abort``: whole passes over the weights may be done, so that each slot holds
        its tokens from before and maybe some of the slice, as ``n_positions`` counts. Raises ``BackendError`` when the
        model fails; its KV cache cannot be trusted afterwards.
        """
        ...

    def close(self) -> None:
        """Free the context."""
        ...
