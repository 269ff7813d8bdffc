"""The prefix cache of one runner: KV state of earlier and running sequences, reused by sequences that share a prefix.

Wires search, idle slots, snapshots and loading, and owns the entries of live sequences. Knows no scheduling.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Many

import numpy as np

from inference.engine.backends.backend import KVCache
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.entries import CellEntry, EntryTree, KVSnapshot, cells_of
from inference.engine.kv_cache.idle_slots import IdleSlots
from inference.engine.kv_cache.prefix_search import PrefixLookup, PrefixMatch, PrefixSearch
from inference.engine.kv_cache.radix_tree import RadixTree
from inference.engine.kv_cache.slot_filler import SlotFiller
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.snapshots import SnapshotDisk, SnapshotStore
from inference.engine.kv_cache.state_saver import StateSaver, is_worth_saving
from inference.engine.sequences.cache_scope import NO_SCOPE, CacheScope
from inference.engine.sequences.sequence import Sequence


class PrefixCache:
    """Coordinates the parts; every live sequence with ``cache_prompt`` has one entry in the index."""

    def __init__(
        self,
        pool: SlotPool,
        kv: KVCache,
        *,
        ram_bytes: int = 0,
        disk: SnapshotDisk | None = None,
        max_idle_cells: int | None = None,
    ) -> None:
        self._pool = pool
        self._kv = kv
        self._tree: EntryTree = RadixTree()
        self._live: dict[int, CellEntry] = {}
        self.snapshots = SnapshotStore(self._tree, ram_bytes, disk)
        self._saver = StateSaver(kv, self.snapshots)
        self.idle = IdleSlots(pool, kv, self._tree, self._saver, max_idle_cells)
        self._search = PrefixSearch(self._tree, kv, pool.n_cells)
        self._filler = SlotFiller(pool, kv, self.idle, self.snapshots, self._search)

    # ---- admission ----

    def find(
        self, prompt: Many[int], priority: int = 0, *, may_share: bool = True, scope: CacheScope = NO_SCOPE
    ) -> PrefixLookup:
        """Return the longest usable prefix of ``prompt`` and a live sequence that will soon hold a longer one."""
        self.snapshots.sync_disk()
        return self._search.find(prompt, priority, may_share=may_share, scope=scope)

    def n_new_cells(self, match: PrefixMatch | None, n_tokens: int) -> int:
        """Return how many free or evictable cells a sequence of ``n_tokens`` needs beside the match.

        Cells that only idle slots hold cannot be evicted once they are shared, so they count as well.
        """
        if match is None:
            return n_tokens
        if match.slot is None:
            return max(n_tokens, len(match.entry.tokens))  # a state is loaded whole, then trimmed
        return n_tokens - match.n_tokens + self._pool.n_idle_only(match.slot, match.n_tokens)

    def admit(self, sequence: Sequence, match: PrefixMatch | None) -> bool:
        """Give ``sequence`` a slot that holds the match and set ``n_computed``; False when no slot is free."""
        # Read before room is made: eviction may push this very snapshot out of RAM.
        state = self.snapshots.read(match.entry) if match and isinstance(match.entry, KVSnapshot) else None
        slot = None if match and match.in_place else self.idle.take_free_slot(exclude=match.slot if match else None)
        if slot is not None:
            if match and not self._filler.fill(slot, match, state):
                match = None
        elif match and match.slot is not None and match.slot in self.idle:
            slot = match.slot
            self._filler.continue_idle(match, slot)
        else:
            return False
        sequence.slot = slot
        sequence.n_computed = match.n_tokens if match else self._filler.swap_in(sequence, slot)
        if match and match.entry.caller == sequence.scope.caller:
            # A turn that is not stored has no owner: it is purged together with the prefix that it continues.
            sequence.tags = sequence.tags or match.entry.tags
        if sequence.cache_prompt:
            tokens = np.asarray(sequence.tokens, dtype=np.int32)
            entry = CellEntry(slot, tokens, sequence, sequence.ephemeral, sequence.tags, sequence.scope.caller)
            self._live[slot] = entry
            self._tree.add(entry.tokens, entry)
        return True

    # ---- live sequences ----

    def release(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the slot back; it becomes idle with ``keep`` and computed tokens of a cacheable prompt, else empty."""
        slot = slot_of(sequence)
        entry = self._live.pop(slot, None)
        if entry is not None:
            self._tree.remove(entry.tokens, entry)
        is_purged = self.snapshots.purged.covers(sequence.tags)
        if keep and entry is not None and sequence.n_computed > 0 and not is_purged:
            self.idle.add(cells_of(sequence, slot, sequence.n_computed))
        else:
            self._kv.remove(slot)
            self._pool.release(slot)
        sequence.slot = None

    def save(self, sequence: Sequence) -> None:
        """Save the state of a live sequence: as a snapshot, or in the sequence itself without ``cache_prompt``."""
        slot = slot_of(sequence)
        if sequence.cache_prompt:
            self._saver.save(cells_of(sequence, slot, sequence.n_computed))
        else:
            state = self._kv.save(slot)
            sequence.swapped_state = state if self.snapshots.fits(len(state)) else None
            sequence.n_swapped = sequence.n_computed

    def take_checkpoint(self, sequence: Sequence) -> None:
        """Handle the end of a common prefix. With a sliding window it cannot be trimmed back to later: save it."""
        sequence.checkpoints.discard(sequence.n_computed)
        if self._kv.window:
            self.save(sequence)

    def state_of(self, sequence: Sequence) -> bytes | None:
        """Return the KV state of ``sequence`` for another runner; None while nothing of it is computed."""
        if sequence.slot is None or sequence.n_computed == 0:
            return sequence.swapped_state
        return self._kv.save(sequence.slot)

    def shorten(self, sequence: Sequence, n_tokens: int) -> None:
        """Free the last ``n_tokens`` cells of a live sequence, which the last batch has filled.

        Safe with a window: the batch displaced only cells that its first token, which stays, had displaced already.
        """
        slot = slot_of(sequence)
        self._kv.trim(slot, self._pool.used[slot] - n_tokens)
        self._pool.shrink(slot, n_tokens)

    # ---- states for other runners ----

    def exportable(self) -> list[KVSnapshot]:
        """List the states that can be continued, youngest first; snapshots of idle slots come without their states."""
        idle = [self._saver.describe(entry) for entry in self.idle.youngest_first() if is_worth_saving(entry)]
        keys = {snapshot.key for snapshot in idle}
        return idle + [snapshot for snapshot in self.snapshots.youngest_first() if snapshot.key not in keys]

    def exported_state(self, snapshot: KVSnapshot) -> bytes | None:
        """Return the state of an exportable snapshot from cells or RAM; None when it is gone."""
        entry = self.idle.with_tokens(snapshot.tokens, snapshot.caller)
        return snapshot.state if entry is None else self._kv.save(entry.slot)

    # ---- removal and disk ----

    def purge(self, tags: Iterable[str]) -> int:
        """Remove the states that belong to these owners alone, see ``purging``; returns their number."""
        return self.snapshots.purge(tags, self.idle.empty)

    def flush_one(self) -> bool:
        """Write the youngest state that is not on disk there, from cells first; False when nothing is left to do."""
        if not self.snapshots.has_disk:
            return False
        for entry in self.idle.youngest_first():
            is_written = self._saver.write_to_disk(entry)
            if is_written is not None:
                return is_written
        return self.snapshots.flush_one()

    def close(self, timeout_secs: float) -> None:
        """Write as many states to disk as the time allows."""
        while self.flush_one():
            pass
        self.snapshots.close(timeout_secs)


def slot_of(sequence: Sequence) -> int:
    """Return the slot of a running sequence; raises ``AccountingError`` without one."""
    if sequence.slot is None:
        raise AccountingError(f"sequence {sequence.id} runs without a slot")
    return sequence.slot
