"""Loading of a matched prefix, or of a swapped-out state, into a live slot. Decides no eviction order."""

from inference.engine.backends.backend import KVCache
from inference.engine.kv_cache.entries import CellEntry, KVSnapshot
from inference.engine.kv_cache.idle_slots import IdleSlots
from inference.engine.kv_cache.prefix_search import PrefixMatch, PrefixSearch
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.snapshots import SnapshotStore
from inference.engine.sequences.sequence import Sequence

MAX_LOADS = 3  # attempts to load a state; before each further one an idle slot is emptied


class SlotFiller:
    """Keeps the counts of the pool equal to the cells that the model uses."""

    def __init__(
        self, pool: SlotPool, kv: KVCache, idle: IdleSlots, snapshots: SnapshotStore, search: PrefixSearch
    ) -> None:
        self._pool = pool
        self._kv = kv
        self._idle = idle
        self._snapshots = snapshots
        self._search = search

    def continue_idle(self, match: PrefixMatch, slot: int) -> None:
        """Make the idle ``slot`` live, trimmed to the match."""
        entry = self._idle.take(slot)
        self._snapshots.supersede(entry.tokens, entry.caller)
        self._trim(slot, len(entry.tokens), match.n_tokens)

    def fill(self, slot: int, match: PrefixMatch, state: bytes | None) -> bool:
        """Bring the match into the empty live ``slot``; False when that failed and the slot is still empty.

        ``state`` is that of a matched snapshot, None when it could not be read.
        """
        entry = match.entry
        if isinstance(entry, CellEntry):
            self._kv.copy(entry.slot, slot, match.n_tokens)
            self._pool.share(entry.slot, slot, match.n_tokens)
            self._idle.touch(entry.slot)
            return True
        if state is None or not self._load(slot, entry, state):
            return False
        n_loaded = len(entry.tokens)
        self._pool.fill(slot, n_loaded)
        # Checked again with the cells that were loaded: the description of the snapshot may be wrong.
        if self._search.n_usable(CellEntry(slot, entry.tokens), match.n_tokens) < match.n_tokens:
            self._kv.remove(slot)
            self._pool.shrink(slot, n_loaded)
            return False
        self._trim(slot, n_loaded, match.n_tokens)
        self._snapshots.supersede(entry.tokens, entry.caller)
        return True

    def swap_in(self, sequence: Sequence, slot: int) -> int:
        """Load the private state of ``sequence`` into its empty slot; returns the number of tokens loaded."""
        state, sequence.swapped_state = sequence.swapped_state, None
        if state is None or not self._idle.make_room(len(sequence.tokens)) or not self._kv.load(slot, state):
            return 0
        n_tokens = self._kv.n_positions(slot)
        self._pool.fill(slot, n_tokens)
        return n_tokens

    def _load(self, slot: int, snapshot: KVSnapshot, state: bytes) -> bool:
        """Load after making room, repeatedly: the pool may count cells as free that the model cannot use."""
        n_tokens = len(snapshot.tokens)
        for _ in range(MAX_LOADS):
            if self._idle.make_room(n_tokens) and self._kv.load(slot, state):
                if self._kv.n_positions(slot) == n_tokens:
                    return True
                self._kv.remove(slot)
                break
            if not self._idle.evict_oldest():
                break
        self._snapshots.drop(snapshot)
        return False

    def _trim(self, slot: int, n_tokens: int, n_kept: int) -> None:
        if n_kept < n_tokens:
            self._kv.trim(slot, n_kept)
            self._pool.shrink(slot, n_tokens - n_kept)
