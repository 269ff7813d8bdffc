"""Slots of ended sequences that keep their cells: eviction order and room for others. Knows no live sequences."""

from collections.abc import Iterator

import numpy as np

from inference.engine.backends.backend import KVCache
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.entries import CellEntry, EntryTree
from inference.engine.kv_cache.radix_tree import Tokens
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.state_saver import StateSaver


class IdleSlots:
    """Idle entries, least recently used first; each is in the index.

    ``max_cells`` bounds the cells beside those of the youngest entry; None: no bound until others need the cells.
    """

    def __init__(
        self, pool: SlotPool, kv: KVCache, tree: EntryTree, saver: StateSaver, max_cells: int | None = None
    ) -> None:
        self._pool = pool
        self._kv = kv
        self._tree = tree
        self._saver = saver
        self._max_cells = max_cells
        self._entries: dict[int, CellEntry] = {}

    def __contains__(self, slot: int | None) -> bool:
        return slot in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def youngest_first(self) -> Iterator[CellEntry]:
        return reversed(self._entries.values())

    def with_tokens(self, tokens: Tokens, caller: str) -> CellEntry | None:
        """Return the entry of exactly these tokens that belongs to ``caller``."""
        entries = (entry for entry in self._entries.values() if entry.caller == caller)
        return next((entry for entry in entries if np.array_equal(entry.tokens, tokens)), None)

    def add(self, entry: CellEntry) -> None:
        """Make the live slot of ``entry`` idle, as the youngest."""
        slot = entry.slot
        self._pool.make_idle(slot)
        duplicate = self.with_tokens(entry.tokens, entry.caller)
        if duplicate is not None:
            entry.ephemeral &= duplicate.ephemeral
            entry.tags |= duplicate.tags
            self.empty(duplicate)
        self._entries[slot] = entry
        self._tree.add(entry.tokens, entry)
        self._swap_out_excess(entry)

    def take(self, slot: int) -> CellEntry:
        """Make an idle slot live again, with all its cells."""
        entry = self._entries.pop(slot)
        self._tree.remove(entry.tokens, entry)
        self._pool.make_live(slot)
        return entry

    def touch(self, slot: int) -> None:
        """Make the entry of ``slot`` the youngest, if it is idle."""
        if slot in self._entries:
            self._entries[slot] = self._entries.pop(slot)

    def make_room(self, n_cells: int) -> bool:
        """Evict until ``n_cells`` are free; False when no idle slot is left before that."""
        while self._pool.n_free < n_cells:
            if not self.evict_oldest():
                return False
        return True

    def evict_oldest(self, *, exclude: int | None = None) -> bool:
        """Empty the least recently used slot, saving its state if that is worth it; False when there is none."""
        entry = next((entry for slot, entry in self._entries.items() if slot != exclude), None)
        if entry is None:
            return False
        self._saver.save(entry)
        self.empty(entry)
        return True

    def take_free_slot(self, *, exclude: int | None) -> int | None:
        """Take a slot without cells from the pool, emptying an idle one if needed; None when none is left."""
        if not self._pool.has_free_slot and not self.evict_oldest(exclude=exclude):
            return None
        return self._pool.take_slot()

    def check(self) -> None:
        """Compare tokens, pool and the model's own count of positions; raises ``AccountingError``."""
        for slot, entry in self._entries.items():
            counts = (len(entry.tokens), self._pool.cached.get(slot), self._kv.n_positions(slot))
            if len(set(counts)) != 1:
                raise AccountingError(f"idle slot {slot} has {counts} tokens, cells and positions; {self._pool}")
        if set(self._entries) != set(self._pool.cached):
            raise AccountingError(f"idle slots {sorted(self._entries)} differ from the cached ones; {self._pool}")

    def _swap_out_excess(self, youngest: CellEntry) -> None:
        """Move entries to RAM, oldest first; an entry that RAM does not take stays in its cells."""
        if self._max_cells is None or not self._saver.has_ram:
            return
        for entry in list(self._entries.values()):
            if self._pool.n_cached - len(youngest.tokens) <= self._max_cells:
                return
            if entry is not youngest and not entry.exceeds_ram:
                self._saver.save(entry, only_ram=True)
                if not entry.exceeds_ram:
                    self.empty(entry)

    def empty(self, entry: CellEntry) -> None:
        """Free the cells of an idle entry without saving its state."""
        del self._entries[entry.slot]
        self._tree.remove(entry.tokens, entry)
        self._kv.remove(entry.slot)
        self._pool.release(entry.slot)
