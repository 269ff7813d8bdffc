"""Search for the longest reusable prefix of a prompt. Reads the index and changes nothing."""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from inference.engine.backends.backend import KVCache
from inference.engine.kv_cache.entries import CellEntry, EntryTree, KVSnapshot
from inference.engine.sequences.cache_scope import NO_SCOPE, CacheScope
from inference.engine.sequences.sequence import Sequence

# Nearly all prompts share their first few tokens; computing fewer than these is faster than sharing them.
MIN_SHARED = 16
MIN_SAVED = 64  # tokens that waiting for a live sequence, or saving a state, must spare


@dataclass(frozen=True)
class PrefixMatch:
    """First ``n_tokens`` of a prompt, held by ``entry``."""

    entry: CellEntry | KVSnapshot
    n_tokens: int

    @property
    def slot(self) -> int | None:
        return self.entry.slot if isinstance(self.entry, CellEntry) else None

    @property
    def in_place(self) -> bool:
        """True for an idle slot continued at its very end: no second slot is needed."""
        entry = self.entry
        return isinstance(entry, CellEntry) and entry.owner is None and self.n_tokens == len(entry.tokens)

    @property
    def preference(self) -> tuple[int, bool, bool, bool]:
        """Sort key: more tokens first, then the cheaper source."""
        entry = self.entry
        in_ram = isinstance(entry, KVSnapshot) and entry.state is not None
        return (self.n_tokens, self.in_place, isinstance(entry, CellEntry), in_ram)


@dataclass(frozen=True)
class PrefixLookup:
    """Result of a search."""

    match: PrefixMatch | None = None  # usable now
    coming: tuple[Sequence, int] | None = None  # live sequence that is computing this many common tokens
    n_known: int = 0  # common tokens with any entry, usable or not


NO_PREFIX = PrefixLookup()


class PrefixSearch:
    """``n_cells`` is the size of the pool: a snapshot of a larger pool cannot be loaded."""

    def __init__(self, tree: EntryTree, kv: KVCache, n_cells: int) -> None:
        self._tree = tree
        self._kv = kv
        self._n_cells = n_cells

    def find(self, prompt: Many[int], priority: int, *, may_share: bool, scope: CacheScope = NO_SCOPE) -> PrefixLookup:
        """Return the best match for ``prompt``; cells count only with ``may_share``, snapshots always.

        Of states of other callers no more than ``scope`` allows is known to exist.
        """
        prompt_ids = np.asarray(prompt, dtype=np.int32)
        best: PrefixMatch | None = None
        coming: tuple[Sequence, int] | None = None
        n_known = 0
        for n_common, entry in self._tree.matches(prompt_ids):
            if isinstance(entry, CellEntry) and not may_share:
                continue
            # At least one token must be computed: the logits after the prompt are not stored.
            n_common = min(n_common, len(prompt_ids) - 1)
            if best is not None and n_common < best.n_tokens:
                break
            n_tokens = scope.n_reusable(entry.caller, n_common)
            n_known = max(n_known, n_tokens)
            match = PrefixMatch(entry, self.n_usable(entry, n_tokens))
            if match.n_tokens and (best is None or match.preference > best.preference):
                best = match
            leader = entry.owner if isinstance(entry, CellEntry) else None
            if coming is None and leader is not None and leader.is_computing(n_tokens, priority):
                coming = (leader, n_tokens)
        n_usable = best.n_tokens if best else 0
        # A checkpoint that another sequence waits for already spares the last few tokens before it at no cost.
        if coming and coming[1] < n_usable + MIN_SAVED and coming[1] not in coming[0].checkpoints:
            coming = None
        return PrefixLookup(best, coming, n_known)

    def n_usable(self, entry: CellEntry | KVSnapshot, n_tokens: int) -> int:
        """Return how many of the first ``n_tokens`` of ``entry`` can be continued; 0 for none."""
        if isinstance(entry, KVSnapshot):
            if len(entry.tokens) > self._n_cells:
                return 0
            at_end, first_position = n_tokens == len(entry.tokens), entry.first_position
        else:
            n_tokens = min(n_tokens, entry.n_ready)
            at_end = entry.owner is None and n_tokens == len(entry.tokens)
            if not at_end and n_tokens < MIN_SHARED:
                return 0
            first_position = self._kv.first_position(entry.slot)
        if at_end:
            return n_tokens
        return n_tokens if n_tokens >= MIN_SHARED and self.window_reaches(first_position, n_tokens) else 0

    def window_reaches(self, first_position: int, n_tokens: int) -> bool:
        """True when a state that starts at ``first_position`` can continue at position ``n_tokens``.

        Layers with a sliding window drop older cells, and llama.cpp trims and copies without complaint to a position
        whose window is incomplete: the logits after it are silently wrong. Position p attends to p - window + 1 ... p.
        """
        window = self._kv.window
        return first_position <= (max(0, n_tokens - window + 1) if window else 0)
