"""Store of saved KV states: RAM in least-recently-used order, and a disk tier behind it when there is one.

Knows bytes and tokens; when to save, and into which cells a state is loaded, is decided by its callers.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from inference.engine.kv_cache.entries import CellEntry, EntryTree, KVSnapshot, snapshot_key
from inference.engine.kv_cache.purging import NO_TAGS, PurgedTags, Tags, losses
from inference.engine.kv_cache.radix_tree import Tokens
from inference.engine.sequences.cache_scope import SHARED


class SnapshotDisk(Protocol):
    """Storage that outlives the process; no call waits for a write."""

    max_bytes: int

    def read_index(self) -> list[KVSnapshot]:
        """Return the snapshots of earlier processes, without states."""
        ...

    def write(self, snapshot: KVSnapshot, state: bytes, *, is_retained: bool = False) -> bool:
        """Queue a state for writing; False when too many bytes are queued already.

        ``is_retained``: the caller keeps the state in RAM anyway, so that queueing costs no memory.
        """
        ...

    def read(self, snapshot: KVSnapshot) -> bytes | None:
        """Return a stored or queued state; ``None`` when it is gone or damaged."""
        ...

    def demote(self, snapshot: KVSnapshot) -> None:
        """Make it the first to be deleted when room is needed."""
        ...

    def remove(self, snapshot: KVSnapshot) -> None:
        """Delete the snapshot's file, also one that is queued."""
        ...

    @property
    def has_removed_all(self) -> bool:
        """False while the writer may still hold the state of a removed snapshot."""
        ...

    def take_removed(self) -> list[str]:
        """Return the keys that left the disk since the last call."""
        ...

    def close(self, timeout_secs: float) -> None:
        """Write the queue within the time."""
        ...


class SnapshotStore:
    """``n_bytes`` of states and tokens stay at or below ``max_bytes``; every snapshot held is in the index once."""

    def __init__(self, tree: EntryTree, max_bytes: int, disk: SnapshotDisk | None = None) -> None:
        self._tree = tree
        self._max_bytes = max_bytes
        self._disk = disk
        self._all: dict[str, KVSnapshot] = {}
        self._in_ram: OrderedDict[str, KVSnapshot] = OrderedDict()  # least recently used first
        self.n_bytes = 0
        self.purged = PurgedTags()
        for snapshot in disk.read_index() if disk else ():
            snapshot.on_disk = True
            self._update_index(snapshot)

    @property
    def is_off(self) -> bool:
        """True without RAM and without a disk."""
        return not self._max_bytes and self._disk is None

    def fits(self, n_bytes: int) -> bool:
        """Return whether the RAM tier can take a state of that size at all."""
        return n_bytes <= self._max_bytes

    @property
    def has_ram(self) -> bool:
        return self._max_bytes > 0

    @property
    def has_disk(self) -> bool:
        return self._disk is not None

    def __len__(self) -> int:
        return len(self._all)

    def contains(self, tokens: Tokens, caller: str = "", *, on_disk: bool = False) -> bool:
        """Return whether the caller's state at the end of exactly these tokens is stored (``on_disk``: there)."""
        snapshot = self._all.get(snapshot_key(tokens, caller))
        return snapshot is not None and (snapshot.on_disk or not on_disk)

    def youngest_first(self) -> list[KVSnapshot]:
        """List the snapshots in RAM that no conversation has continued."""
        return [snapshot for snapshot in reversed(self._in_ram.values()) if not snapshot.is_superseded]

    def put(
        self,
        tokens: Tokens,
        first_position: int,
        state: bytes,
        *,
        ephemeral: bool = False,
        tags: Tags = NO_TAGS,
        caller: str = "",
    ) -> None:
        """Store a state as the youngest; a state whose tags are all purged is not stored."""
        if self.purged.covers(tags):
            return
        stored = self._all.get(snapshot_key(tokens, caller))
        snapshot = stored or KVSnapshot(tokens, first_position, ephemeral=ephemeral, caller=caller)
        snapshot.ephemeral &= ephemeral
        snapshot.tags |= self.purged.remaining(tags)
        snapshot.first_position = first_position
        self._to_ram(snapshot, state)
        if snapshot.state is None and not snapshot.on_disk:
            self._to_disk(snapshot, state)
        self._update_index(snapshot)

    def write(self, entry: CellEntry, first_position: int, state: bytes) -> bool:
        """Store the state of an idle slot on disk only; False when too many writes are queued."""
        stored = self._all.get(snapshot_key(entry.tokens, entry.caller))
        snapshot = stored or KVSnapshot(entry.tokens, first_position, caller=entry.caller)
        snapshot.tags |= entry.tags
        snapshot.ephemeral = False  # another request, which may be stored, has the same tokens
        self._to_disk(snapshot, state)
        self._update_index(snapshot)
        return snapshot.on_disk

    def read(self, snapshot: KVSnapshot) -> bytes | None:
        """Return the state from RAM or disk; ``None`` when it cannot be read, and then it is dropped."""
        if snapshot.state is not None:
            self._in_ram.move_to_end(snapshot.key)
            return snapshot.state
        state = self._disk.read(snapshot) if self._disk else None
        if state is None:
            self.drop(snapshot)
            return None
        self._to_ram(snapshot, state)
        return state

    def supersede(self, tokens: Tokens, caller: str = "") -> None:
        """Make the snapshot first out, since a conversation continued from it; a second call restores it.

        The second conversation shows that the prefix is common to several, as that of all callers is from the start.
        """
        snapshot = self._all.get(snapshot_key(tokens, caller))
        if snapshot is None or caller == SHARED:
            return
        snapshot.is_superseded = not snapshot.is_superseded
        if not snapshot.is_superseded:
            return
        if snapshot.key in self._in_ram:
            self._in_ram.move_to_end(snapshot.key, last=False)
        if self._disk is not None and snapshot.on_disk:
            self._disk.demote(snapshot)

    def drop(self, snapshot: KVSnapshot) -> None:
        """Remove the snapshot from RAM and from the index."""
        self._leave_ram(snapshot)
        snapshot.on_disk = False
        self._update_index(snapshot)

    def add_tags(self, entry: CellEntry) -> None:
        """Add the owners of ``entry`` to the snapshot of the same tokens, if there is one."""
        snapshot = self._all.get(snapshot_key(entry.tokens, entry.caller))
        if snapshot is not None:
            snapshot.tags |= self.purged.remaining(entry.tags)

    def purge(self, tags: Iterable[str], empty: Callable[[CellEntry], None]) -> int:
        """Remove the states of these owners from RAM, disk and, by ``empty``, from cells; returns their number."""
        self.purged.add(tags)
        n_removed = 0
        for entry, owners in list(losses(self._tree, self.purged)):
            n_removed += not owners
            if isinstance(entry, CellEntry):
                entry.tags = owners
                if not owners:
                    empty(entry)
            elif owners:
                entry.tags = owners
                # The file names the old owners: the state is read into RAM and written again from there.
                if self._disk is not None and entry.on_disk and self.read(entry) is not None:
                    self._disk.remove(entry)
                    entry.on_disk = False
                    self._update_index(entry)
            else:
                self.drop(entry)
                if self._disk is not None:
                    self._disk.remove(entry)
        return n_removed

    @property
    def has_removed_all(self) -> bool:
        return self._disk is None or self._disk.has_removed_all

    def sync_disk(self) -> None:
        """Remove snapshots from the index that left the disk and are not in RAM."""
        for key in self._disk.take_removed() if self._disk else ():
            snapshot = self._all.get(key)
            if snapshot is not None:
                snapshot.on_disk = False
                self._update_index(snapshot)

    def flush_one(self) -> bool:
        """Write the youngest snapshot that is in RAM alone; False when there is none, or the disk cannot follow.

        Flushing while idle bounds both the loss by a crash and the work at shutdown.
        """
        for snapshot, state in self._unwritten():
            self._to_disk(snapshot, state)
            if snapshot.on_disk:
                return True
        return False

    def close(self, timeout_secs: float) -> None:
        """Write snapshots that are in RAM alone, youngest first, within the time."""
        if self._disk is None:
            return
        for snapshot, state in self._unwritten():
            self._to_disk(snapshot, state, is_retained=True)
        self._disk.close(timeout_secs)

    def _unwritten(self) -> list[tuple[KVSnapshot, bytes]]:
        """List snapshots in RAM alone, youngest first, as far as they fill half of the disk.

        One more would displace a younger file; the other half is for entries in cells, which are younger than these.
        """
        unwritten = []
        n_left = self._disk.max_bytes // 2 if self._disk else 0
        for snapshot in reversed(self._in_ram.values()):
            is_storable = not (snapshot.is_superseded or snapshot.ephemeral) and snapshot.n_bytes <= n_left
            if snapshot.state is None or not is_storable:
                continue
            n_left -= snapshot.n_bytes
            if not snapshot.on_disk:
                unwritten.append((snapshot, snapshot.state))
        return unwritten

    def _update_index(self, snapshot: KVSnapshot) -> None:
        is_indexed = snapshot.key in self._all
        is_stored = snapshot.state is not None or snapshot.on_disk
        if is_stored and not is_indexed:
            self._all[snapshot.key] = snapshot
            self._tree.add(snapshot.tokens, snapshot)
        elif is_indexed and not is_stored:
            del self._all[snapshot.key]
            self._tree.remove(snapshot.tokens, snapshot)

    def _to_ram(self, snapshot: KVSnapshot, state: bytes) -> None:
        self._leave_ram(snapshot)
        n_bytes = snapshot.tokens.nbytes + len(state)
        if n_bytes > self._max_bytes:
            return
        while self.n_bytes + n_bytes > self._max_bytes:
            oldest = next(iter(self._in_ram.values()))
            if oldest.state is not None and oldest.wants_disk:
                self._to_disk(oldest, oldest.state)
            self._leave_ram(oldest)
            self._update_index(oldest)
        snapshot.state = state
        self._in_ram[snapshot.key] = snapshot
        self.n_bytes += n_bytes

    def _leave_ram(self, snapshot: KVSnapshot) -> None:
        if self._in_ram.pop(snapshot.key, None) is not None:
            self.n_bytes -= snapshot.n_bytes
            snapshot.state = None

    def _to_disk(self, snapshot: KVSnapshot, state: bytes, *, is_retained: bool = False) -> None:
        if self._disk is not None and not snapshot.ephemeral:
            snapshot.on_disk = snapshot.on_disk or self._disk.write(snapshot, state, is_retained=is_retained)
