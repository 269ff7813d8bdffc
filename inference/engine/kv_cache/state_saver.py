"""Snapshot policy: chooses the KV states that are saved, and describes them. Knows no sequences and no eviction."""

from inference.engine.backends.backend import KVCache
from inference.engine.kv_cache.entries import CellEntry, KVSnapshot
from inference.engine.kv_cache.prefix_search import MIN_SAVED
from inference.engine.kv_cache.snapshots import SnapshotStore


class StateSaver:
    """Copies states from cells to the snapshot store."""

    def __init__(self, kv: KVCache, snapshots: SnapshotStore) -> None:
        self._kv = kv
        self._snapshots = snapshots

    @property
    def has_ram(self) -> bool:
        return self._snapshots.has_ram

    def save(self, entry: CellEntry, *, only_ram: bool = False) -> None:
        """Save the state of ``entry`` if it is long enough and not stored yet; sets ``entry.exceeds_ram``."""
        tokens = entry.tokens
        if not is_worth_saving(entry) or self._snapshots.is_off:
            return
        if self._snapshots.contains(tokens, entry.caller):
            self._snapshots.add_tags(entry)
            return
        state = self._kv.save(entry.slot)
        entry.exceeds_ram = not self._snapshots.fits(len(state) + tokens.nbytes)
        if not (only_ram and entry.exceeds_ram):
            first_position = self._first_position(entry)
            self._snapshots.put(
                tokens, first_position, state, ephemeral=entry.ephemeral, tags=entry.tags, caller=entry.caller
            )

    def write_to_disk(self, entry: CellEntry) -> bool | None:
        """Write the state of ``entry`` to disk; None when it need not be there, False when too many writes wait."""
        is_wanted = is_worth_saving(entry) and not entry.ephemeral
        if not is_wanted or self._snapshots.contains(entry.tokens, entry.caller, on_disk=True):
            return None
        return self._snapshots.write(entry, self._first_position(entry), self._kv.save(entry.slot))

    def describe(self, entry: CellEntry) -> KVSnapshot:
        """Return the snapshot that saving ``entry`` would make, without its state."""
        first_position = self._first_position(entry)
        return KVSnapshot(entry.tokens, first_position, ephemeral=entry.ephemeral, tags=entry.tags, caller=entry.caller)

    def _first_position(self, entry: CellEntry) -> int:
        """Return the first position of a saved state: cells before the next position's window are left out."""
        window = self._kv.window
        return max(self._kv.first_position(entry.slot), len(entry.tokens) - window + 1) if window else 0


def is_worth_saving(entry: CellEntry) -> bool:
    return len(entry.tokens) >= MIN_SAVED
