"""Ended sequences that stay in their cells, for a prompt that begins with the same tokens.

Decides what can be continued and what goes when room is needed; knows no scheduling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.engine.backend import Memory
from inference.engine.errors import BooksError
from inference.engine.pool import Pool

Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Match:
    """An idle slot whose first ``n_tokens`` positions are those of the prompt."""

    slot: int
    n_tokens: int


class IdleCache:
    """Idle slots in the order of their last use, oldest first."""

    def __init__(self, pool: Pool, memory: Memory) -> None:
        self._pool = pool
        self._memory = memory
        self._idle: dict[int, Tokens] = {}

    def match(self, prompt: Sequence[int]) -> Match | None:
        """The idle sequence that saves most of the prompt, if any saves some."""
        if not self._idle:
            return None
        wanted = np.asarray(prompt, dtype=np.int32)
        found = [
            Match(slot, n_tokens)
            for slot, held in self._idle.items()
            if (n_tokens := self._n_reusable(slot, held, wanted)) > 0
        ]
        return max(found, key=lambda match: match.n_tokens, default=None)

    def _n_reusable(self, slot: int, held: Tokens, wanted: Tokens) -> int:
        # At least one token has to be computed: the logits after the prompt are not kept.
        n_tokens = min(_n_common(held, wanted), len(wanted) - 1)
        if n_tokens == len(held):
            return n_tokens
        # To continue earlier costs the idle sequence its end; not for a beginning that many share.
        if 2 * n_tokens < len(held):
            return 0
        return n_tokens if self._remembers(slot, n_tokens) else 0

    def _remembers(self, slot: int, n_tokens: int) -> bool:
        """Whether the slot can go on at position ``n_tokens``.

        Layers with a sliding window forget what lies further back, and llama.cpp trims without complaint to a place
        whose window is gone: the logits after it are silently wrong. The next position p sees p - window + 1 ... p.
        """
        window = self._memory.window
        first_needed = max(0, n_tokens - window + 1) if window else 0
        return self._memory.first_position(slot) <= first_needed

    def take(self, match: Match) -> None:
        """Make the matched slot live, trimmed to the common tokens."""
        held = self._idle.pop(match.slot)
        self._pool.revive(match.slot)
        if match.n_tokens < len(held):
            self._memory.trim(match.slot, match.n_tokens)
            self._pool.drain(match.slot, len(held) - match.n_tokens)

    def keep(self, slot: int, tokens: Sequence[int]) -> None:
        """Make a live slot idle; ``tokens`` are those in its cells."""
        self._pool.shelve(slot)
        self._idle[slot] = np.asarray(tokens, dtype=np.int32)

    def evict_oldest(self, *, but: int | None = None) -> bool:
        """Empty the idle slot that was not used for longest; False when there is none."""
        slot = next((slot for slot in self._idle if slot != but), None)
        if slot is None:
            return False
        del self._idle[slot]
        self._memory.remove(slot)
        self._pool.release(slot)
        return True

    def check(self) -> None:
        """Every idle slot holds, by the model's own count, the cells and tokens that the books say."""
        for slot, tokens in self._idle.items():
            counts = (len(tokens), self._pool.cached.get(slot), self._memory.n_positions(slot))
            if len(set(counts)) != 1:
                raise BooksError(f"idle slot {slot}: {counts} tokens, cells and positions; {self._pool}")


def _n_common(held: Tokens, wanted: Tokens) -> int:
    n = min(len(held), len(wanted))
    differs = held[:n] != wanted[:n]
    return int(differs.argmax()) if differs.any() else n
