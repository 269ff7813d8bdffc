"""Saved states of sequences in RAM, least recently used out first; what falls out goes to disk when there is one.

Knows bytes and tokens; when to save, and into which cells a state comes back, is the cache's decision.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np

from inference.engine.kv_cache.purging import NO_TAGS, PurgedTags, Tags, losses
from inference.engine.kv_cache.radix_tree import RadixTree, Tokens
from inference.engine.sequences.sequence import Sequence


@dataclass(eq=False, slots=True)
class CellEntry:
    """The tokens of a slot. While a sequence owns it, it is live, and only some of them may be computed."""

    slot: int
    tokens: Tokens
    owner: Sequence | None = None
    ephemeral: bool = False
    tags: Tags = NO_TAGS
    is_bulky: bool = False  # its state is more than the tier in RAM takes

    @property
    def is_running(self) -> bool:
        return self.owner is not None

    @property
    def n_ready(self) -> int:
        return len(self.tokens) if self.owner is None else min(self.owner.n_computed, len(self.tokens))


@dataclass(eq=False, slots=True)
class KVSnapshot:
    """A state saved at the end of ``tokens``; in RAM, on disk, or both."""

    tokens: Tokens
    first_position: int  # that every layer still remembers
    state: bytes | None = None
    on_disk: bool = False
    ephemeral: bool = False  # for RAM alone: who asked wants nothing kept
    tags: Tags = NO_TAGS  # owners, see ``purging``
    is_passed: bool = False  # a conversation went on from here: the end it comes to is worth more
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = key_of(self.tokens)

    @property
    def is_running(self) -> bool:
        return False

    @property
    def n_bytes(self) -> int:
        return self.tokens.nbytes + len(self.state or b"")

    @property
    def wants_disk(self) -> bool:
        """Whether it would be lost with RAM, and should not be."""
        return not (self.on_disk or self.is_passed or self.ephemeral)


def key_of(tokens: Tokens) -> str:
    """Names the tokens, in a file name too."""
    return blake2b(np.ascontiguousarray(tokens).tobytes(), digest_size=16).hexdigest()


Index = RadixTree[CellEntry | KVSnapshot]


class SnapshotDisk(Protocol):
    """Where snapshots outlive the process; nothing here waits for a write."""

    max_bytes: int

    def found(self) -> list[KVSnapshot]:
        """What a former process left, without states."""
        ...

    def write(self, snapshot: KVSnapshot, state: bytes, *, is_held: bool = False) -> bool:
        """Take a state to be written soon; False when too much waits already.

        ``is_held``: the caller holds the state until the end anyway, so that to wait costs no memory.
        """
        ...

    def read(self, snapshot: KVSnapshot) -> bytes | None:
        """A state that was found or written; ``None`` when it is gone or damaged."""
        ...

    def age(self, snapshot: KVSnapshot) -> None:
        """Let it be the first to go when room is needed."""
        ...

    def remove(self, snapshot: KVSnapshot) -> None:
        """Delete its file, also one that waits to be written."""
        ...

    @property
    def has_removed_all(self) -> bool:
        """Whether no removed file waits for the writer any more."""
        ...

    def gone(self) -> list[str]:
        """Keys that left the disk since the last call."""
        ...

    def close(self, timeout_secs: float) -> None:
        """Write what waits, as far as the time goes."""
        ...


class SnapshotStore:
    """``n_bytes`` of states and tokens stay at or below ``max_bytes``. Whatever is held is in the index, once."""

    def __init__(self, index: Index, max_bytes: int, disk: SnapshotDisk | None = None) -> None:
        self._index = index
        self._max_bytes = max_bytes
        self._disk = disk
        self._all: dict[str, KVSnapshot] = {}
        self._in_ram: OrderedDict[str, KVSnapshot] = OrderedDict()  # oldest first
        self.n_bytes = 0
        self.purged = PurgedTags()
        for snapshot in disk.found() if disk else ():
            snapshot.on_disk = True
            self._hold(snapshot)

    @property
    def is_off(self) -> bool:
        """Whether there is no place at all for a state."""
        return not self._max_bytes and self._disk is None

    def fits(self, n_bytes: int) -> bool:
        """Whether RAM takes a state of that size at all."""
        return n_bytes <= self._max_bytes

    @property
    def has_ram(self) -> bool:
        return self._max_bytes > 0

    @property
    def has_disk(self) -> bool:
        return self._disk is not None

    def __len__(self) -> int:
        return len(self._all)

    def holds(self, tokens: Tokens, *, on_disk: bool = False) -> bool:
        """Whether the state at the end of exactly these tokens is held, or is on disk."""
        found = self._all.get(key_of(tokens))
        return found is not None and (found.on_disk or not on_disk)

    def youngest(self) -> list[KVSnapshot]:
        """Those in RAM that nobody has gone on from, youngest first."""
        return [snapshot for snapshot in reversed(self._in_ram.values()) if not snapshot.is_passed]

    def put(
        self, tokens: Tokens, first_position: int, state: bytes, *, ephemeral: bool = False, tags: Tags = NO_TAGS
    ) -> None:
        """Keep a state, as the youngest; one whose tags are all purged is not kept."""
        if self.purged.covers(tags):
            return
        snapshot = self._all.get(key_of(tokens)) or KVSnapshot(tokens, first_position, ephemeral=ephemeral)
        snapshot.ephemeral &= ephemeral
        snapshot.tags |= self.purged.remaining(tags)
        snapshot.first_position = first_position
        self._to_ram(snapshot, state)
        if snapshot.state is None and not snapshot.on_disk:
            self._to_disk(snapshot, state)
        self._hold(snapshot)

    def write(self, tokens: Tokens, first_position: int, state: bytes, tags: Tags = NO_TAGS) -> bool:
        """Put a state on disk only, where it survives this process; False when the disk cannot follow."""
        snapshot = self._all.get(key_of(tokens)) or KVSnapshot(tokens, first_position)
        snapshot.tags |= tags
        snapshot.ephemeral = False  # somebody else, who wants it kept, has come to the same tokens
        self._to_disk(snapshot, state)
        self._hold(snapshot)
        return snapshot.on_disk

    def state(self, snapshot: KVSnapshot) -> bytes | None:
        """The saved state, from RAM or disk; ``None`` when it could not be read, and then it is not held any more."""
        if snapshot.state is not None:
            self._in_ram.move_to_end(snapshot.key)
            return snapshot.state
        state = self._disk.read(snapshot) if self._disk else None
        if state is None:
            self.drop(snapshot)
            return None
        self._to_ram(snapshot, state)
        return state

    def pass_by(self, tokens: Tokens) -> None:
        """A conversation goes on from here: first out, unless somebody else comes back to it."""
        snapshot = self._all.get(key_of(tokens))
        if snapshot is None:
            return
        snapshot.is_passed = not snapshot.is_passed
        if not snapshot.is_passed:
            return
        if snapshot.key in self._in_ram:
            self._in_ram.move_to_end(snapshot.key, last=False)
        if self._disk is not None and snapshot.on_disk:
            self._disk.age(snapshot)

    def drop(self, snapshot: KVSnapshot) -> None:
        """Forget it everywhere."""
        self._leave_ram(snapshot)
        snapshot.on_disk = False
        self._hold(snapshot)

    def add_tags(self, tokens: Tokens, tags: Tags) -> None:
        """Another owner has come to exactly these tokens."""
        snapshot = self._all.get(key_of(tokens))
        if snapshot is not None:
            snapshot.tags |= self.purged.remaining(tags)

    def purge(self, tags: Iterable[str], empty: Callable[[CellEntry], None]) -> int:
        """Remove the states of these owners from everywhere, those in cells by ``empty``; the number removed."""
        self.purged.add(tags)
        n_removed = 0
        for entry, owners in list(losses(self._index, self.purged)):
            n_removed += not owners
            if isinstance(entry, CellEntry):
                entry.tags = owners
                if not owners:
                    empty(entry)
            elif owners:
                self._relabel(entry, owners)
            else:
                self.drop(entry)
                if self._disk is not None:
                    self._disk.remove(entry)
        return n_removed

    def _relabel(self, snapshot: KVSnapshot, tags: Tags) -> None:
        """Give it other owners. A file names the former ones: its state goes to RAM, and from there to disk again."""
        snapshot.tags = tags
        if self._disk is not None and snapshot.on_disk and self.state(snapshot) is not None:
            self._disk.remove(snapshot)
            snapshot.on_disk = False
            self._hold(snapshot)

    @property
    def has_removed_all(self) -> bool:
        return self._disk is None or self._disk.has_removed_all

    def forget_gone(self) -> None:
        """Take note of what left the disk."""
        for key in self._disk.gone() if self._disk else ():
            snapshot = self._all.get(key)
            if snapshot is not None:
                snapshot.on_disk = False
                self._hold(snapshot)

    def tidy(self) -> bool:
        """Bring the youngest that is in RAM alone to disk as well; False when there is none, or the disk cannot follow.

        What a crash takes is then little, and so is what is left to do at the end.
        """
        for snapshot, state in self._lost_with_ram():
            self._to_disk(snapshot, state)
            if snapshot.on_disk:
                return True
        return False

    def close(self, timeout_secs: float) -> None:
        """Bring to disk what is in RAM alone, youngest first."""
        if self._disk is None:
            return
        for snapshot, state in self._lost_with_ram():
            self._to_disk(snapshot, state, is_held=True)
        self._disk.close(timeout_secs)

    def _lost_with_ram(self) -> list[tuple[KVSnapshot, bytes]]:
        """Youngest first, and no more than fill half the disk: one too many would take the place of a younger one.

        The other half is for what is still in cells, and younger than all of these.
        """
        found = []
        n_left = self._disk.max_bytes // 2 if self._disk else 0
        for snapshot in reversed(self._in_ram.values()):
            is_kept = not (snapshot.is_passed or snapshot.ephemeral) and snapshot.n_bytes <= n_left
            if snapshot.state is None or not is_kept:
                continue
            n_left -= snapshot.n_bytes
            if not snapshot.on_disk:
                found.append((snapshot, snapshot.state))
        return found

    def _hold(self, snapshot: KVSnapshot) -> None:
        """Make the index say whether the snapshot can be had."""
        is_held = snapshot.key in self._all
        is_here = snapshot.state is not None or snapshot.on_disk
        if is_here and not is_held:
            self._all[snapshot.key] = snapshot
            self._index.add(snapshot.tokens, snapshot)
        elif is_held and not is_here:
            del self._all[snapshot.key]
            self._index.remove(snapshot.tokens, snapshot)

    def _to_ram(self, snapshot: KVSnapshot, state: bytes) -> None:
        self._leave_ram(snapshot)
        n_bytes = snapshot.tokens.nbytes + len(state)
        if n_bytes > self._max_bytes:
            return
        while self.n_bytes + n_bytes > self._max_bytes:
            self._overflow(next(iter(self._in_ram.values())))
        snapshot.state = state
        self._in_ram[snapshot.key] = snapshot
        self.n_bytes += n_bytes

    def _overflow(self, snapshot: KVSnapshot) -> None:
        if snapshot.state is not None and snapshot.wants_disk:
            self._to_disk(snapshot, snapshot.state)
        self._leave_ram(snapshot)
        self._hold(snapshot)

    def _leave_ram(self, snapshot: KVSnapshot) -> None:
        if self._in_ram.pop(snapshot.key, None) is not None:
            self.n_bytes -= snapshot.n_bytes
            snapshot.state = None

    def _to_disk(self, snapshot: KVSnapshot, state: bytes, *, is_held: bool = False) -> None:
        if self._disk is not None and not snapshot.ephemeral:
            snapshot.on_disk = snapshot.on_disk or self._disk.write(snapshot, state, is_held=is_held)
