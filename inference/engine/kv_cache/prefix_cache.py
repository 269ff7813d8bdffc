"""The prefix cache: what begins like a prompt, in cells of live or idle sequences or in a snapshot, and how to use it.

Decides what can be continued and what goes when room is needed; knows no scheduling.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np

from inference.engine.backends.backend import KVCache
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.purging import NO_TAGS, Tags
from inference.engine.kv_cache.radix_tree import RadixTree
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.kv_cache.snapshots import CellEntry, Index, KVSnapshot, SnapshotDisk, SnapshotStore
from inference.engine.sequences.sequence import Sequence, SequenceState

# Fewer common tokens are computed sooner than shared; nearly all prompts begin with the same few.
MIN_SHARED = 16
MIN_SAVED = 64  # tokens that to wait for a live sequence, or to save a state, has to spare
MAX_LOADS = 3  # attempts to bring a state into cells, each with less beside it


@dataclass(frozen=True)
class PrefixMatch:
    """The first ``n_tokens`` of a prompt, which ``entry`` holds."""

    entry: CellEntry | KVSnapshot
    n_tokens: int

    @property
    def slot(self) -> int | None:
        return self.entry.slot if isinstance(self.entry, CellEntry) else None

    @property
    def in_place(self) -> bool:
        """Whether an idle sequence is continued at its very end: it needs no other slot."""
        entry = self.entry
        return isinstance(entry, CellEntry) and entry.owner is None and self.n_tokens == len(entry.tokens)

    @property
    def worth(self) -> tuple[int, bool, bool, bool]:
        """More tokens first; of equals, what costs less."""
        entry = self.entry
        in_ram = isinstance(entry, KVSnapshot) and entry.state is not None
        return (self.n_tokens, self.in_place, isinstance(entry, CellEntry), in_ram)


@dataclass(frozen=True)
class PrefixLookup:
    """What there is for a prompt."""

    match: PrefixMatch | None = None  # usable now
    coming: tuple[Sequence, int] | None = None  # a live sequence is on its way to that many common tokens
    n_known: int = 0  # common tokens with anything, usable or not


NOTHING = PrefixLookup()


class PrefixCache:
    """Idle slots in the order of their last use, oldest first; live ones while they run; snapshots of both."""

    def __init__(
        self,
        pool: SlotPool,
        memory: KVCache,
        *,
        ram_bytes: int = 0,
        disk: SnapshotDisk | None = None,
        max_idle_cells: int | None = None,
    ) -> None:
        """``max_idle_cells``: what idle sequences may keep beside the youngest; None: all that nobody needs."""
        self._pool = pool
        self._memory = memory
        self._max_idle_cells = max_idle_cells
        self._index: Index = RadixTree()
        self._idle: dict[int, CellEntry] = {}
        self._live: dict[int, CellEntry] = {}
        self.snapshots = SnapshotStore(self._index, ram_bytes, disk)

    # ---- looking ----

    def find(self, prompt: Many[int], priority: int = 0, *, may_share: bool = True) -> PrefixLookup:
        """The longest usable beginning, in snapshots alone unless cells may be shared, and what will soon be longer."""
        self.snapshots.forget_gone()
        wanted = np.asarray(prompt, dtype=np.int32)
        best: PrefixMatch | None = None
        coming: tuple[Sequence, int] | None = None
        n_known = 0
        for n_common, entry in self._index.matches(wanted):
            if isinstance(entry, CellEntry) and not may_share:
                continue
            # At least one token has to be computed: the logits after the prompt are not kept.
            n_tokens = min(n_common, len(wanted) - 1)
            if best is not None and n_tokens < best.n_tokens:
                break
            n_known = max(n_known, n_tokens)
            match = PrefixMatch(entry, self._n_usable(entry, n_tokens))
            if match.n_tokens and (best is None or match.worth > best.worth):
                best = match
            if coming is None and (leader := _on_its_way(entry, n_tokens, priority)):
                coming = (leader, n_tokens)
        n_usable = best.n_tokens if best else 0
        # Once somebody waits for a mark, the last few tokens before it are not computed twice either.
        if coming and coming[1] < n_usable + MIN_SAVED and coming[1] not in coming[0].checkpoints:
            coming = None
        return PrefixLookup(best, coming, n_known)

    def _n_usable(self, entry: CellEntry | KVSnapshot, n_tokens: int) -> int:
        """How many of the common tokens can be gone on from."""
        if isinstance(entry, KVSnapshot):
            if len(entry.tokens) > self._pool.n_cells:
                return 0  # saved by a process with a larger pool
            at_end, first_position = n_tokens == len(entry.tokens), entry.first_position
        else:
            n_tokens = min(n_tokens, entry.n_ready)
            at_end = entry.owner is None and n_tokens == len(entry.tokens)
            if not at_end and n_tokens < MIN_SHARED:
                return 0
            first_position = self._memory.first_position(entry.slot)
        if at_end:
            return n_tokens
        return n_tokens if n_tokens >= MIN_SHARED and self._remembers(first_position, n_tokens) else 0

    def _remembers(self, first_position: int, n_tokens: int) -> bool:
        """Whether a state that begins at ``first_position`` can go on at position ``n_tokens``.

        Layers with a sliding window forget what lies further back, and llama.cpp trims and copies without complaint to
        a place whose window is gone: the logits after it are silently wrong. The next position p sees
        p - window + 1 ... p.
        """
        window = self._memory.window
        return first_position <= (max(0, n_tokens - window + 1) if window else 0)

    def n_new_cells(self, match: PrefixMatch | None, n_tokens: int) -> int:
        """Of ``n_tokens`` cells for a sequence that begins with the match, those to be found elsewhere.

        Cells that only idle sequences hold are no room any more once they are shared: they count too.
        """
        if match is None:
            return n_tokens
        if match.slot is None:
            return max(n_tokens, len(match.entry.tokens))  # a state comes back whole, then it is trimmed
        return n_tokens - match.n_tokens + self._pool.n_idle_only(match.slot, match.n_tokens)

    # ---- live sequences ----

    def admit(self, sequence: Sequence, match: PrefixMatch | None) -> bool:
        """Give the sequence a slot that holds the match already; False when no slot can be had."""
        if match and match.in_place:
            slot = self._continue(match)
        else:
            # Held on to: making room may push this very snapshot out of RAM.
            state = self._state(match)
            taken = self._take_slot(but=match.slot if match else None)
            if taken is None and match and match.slot in self._idle:
                taken = self._continue(match)
            elif taken is not None and match and not self._fill(taken, match, state):
                match = None
            if taken is None:
                return False
            slot = taken
        sequence.slot = slot
        sequence.n_computed = match.n_tokens if match else self._unpark(sequence, slot)
        if match:
            # A turn that nobody stores has no owner; what it goes on from tells when it has to go.
            sequence.tags = sequence.tags or match.entry.tags
        if sequence.cache_prompt:
            tokens = np.asarray(sequence.tokens, dtype=np.int32)
            self._live[slot] = CellEntry(slot, tokens, sequence, sequence.ephemeral, sequence.tags)
            self._index.add(self._live[slot].tokens, self._live[slot])
        return True

    def _unpark(self, sequence: Sequence, slot: int) -> int:
        """Bring what a sequence kept to itself back into its empty slot; how many tokens that were."""
        state, sequence.swapped_state = sequence.swapped_state, None
        if state is None or not self.make_room(len(sequence.tokens)) or not self._memory.load(slot, state):
            return 0
        n_tokens = self._memory.n_positions(slot)
        self._pool.fill(slot, n_tokens)
        return n_tokens

    def leave(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the slot back; its cells become idle if they are worth it and ``keep`` says so, else empty."""
        slot = _slot_of(sequence)
        live = self._live.pop(slot, None)
        if live is not None:
            self._index.remove(live.tokens, live)
        is_purged = self.snapshots.purged.covers(sequence.tags)
        if keep and live is not None and sequence.n_computed > 0 and not is_purged:
            tokens = sequence.tokens[: sequence.n_computed]
            self.keep(slot, tokens, ephemeral=sequence.ephemeral, tags=sequence.tags)
        else:
            self._memory.remove(slot)
            self._pool.release(slot)
        sequence.slot = None

    def save(self, sequence: Sequence) -> None:
        """A snapshot of a live sequence where it is now; one that shares nothing keeps its state to itself."""
        if not sequence.cache_prompt:
            state = self._memory.save(_slot_of(sequence))
            sequence.swapped_state = state if self.snapshots.fits(len(state)) else None
            sequence.n_swapped = sequence.n_computed
        else:
            tokens = np.asarray(sequence.tokens[: sequence.n_computed], dtype=np.int32)
            entry = CellEntry(_slot_of(sequence), tokens, ephemeral=sequence.ephemeral, tags=sequence.tags)
            self._stash(entry)

    def state_of(self, sequence: Sequence) -> bytes | None:
        """Its cells, to go on from elsewhere; None while it has none."""
        if sequence.slot is None or sequence.n_computed == 0:
            return sequence.swapped_state
        return self._memory.save(sequence.slot)

    def shorten(self, sequence: Sequence, n_tokens: int) -> None:
        """Take the last ``n_tokens`` cells of a live sequence back, which the batch just decoded has filled.

        Safe with a window: to fill them the model gave up only what the batch's first token, which stays, had already
        pushed out of it.
        """
        slot = _slot_of(sequence)
        self._memory.trim(slot, self._pool.used[slot] - n_tokens)
        self._pool.drain(slot, n_tokens)

    def take_checkpoint(self, sequence: Sequence) -> None:
        """The end of a common beginning is computed. With a window it cannot be gone back to later: save it."""
        sequence.checkpoints.discard(sequence.n_computed)
        if self._memory.window:
            self.save(sequence)

    # ---- idle sequences ----

    def keep(self, slot: int, tokens: Many[int], *, ephemeral: bool = False, tags: Tags = NO_TAGS) -> None:
        """Make a live slot idle; ``tokens`` are those in its cells."""
        self._pool.shelve(slot)
        entry = CellEntry(slot, np.asarray(tokens, dtype=np.int32), ephemeral=ephemeral, tags=tags)
        same = next((each for each in self._idle.values() if np.array_equal(each.tokens, entry.tokens)), None)
        if same is not None:
            entry.ephemeral &= same.ephemeral
            entry.tags |= same.tags
            self._empty(same)
        self._idle[slot] = entry
        self._index.add(entry.tokens, entry)
        if self._max_idle_cells is not None and self.snapshots.has_ram:
            self._thin_out(entry, self._max_idle_cells)

    def _thin_out(self, youngest: CellEntry, max_cells: int) -> None:
        """Bring idle sequences to RAM, oldest first; one that it does not take stays where it is."""
        for entry in list(self._idle.values()):
            if self._pool.n_cached - len(youngest.tokens) <= max_cells:
                return
            if entry is not youngest and not entry.is_bulky:
                self._stash(entry, only_ram=True)
                if not entry.is_bulky:
                    self._empty(entry)

    def worth_keeping(self) -> list[KVSnapshot]:
        """What could be gone on from, youngest first; idle sequences, still in their cells, without their states."""
        idle = [
            KVSnapshot(
                entry.tokens,
                self._first_saved(entry.slot, len(entry.tokens)),
                ephemeral=entry.ephemeral,
                tags=entry.tags,
            )
            for entry in reversed(self._idle.values())
            if len(entry.tokens) >= MIN_SAVED
        ]
        keys = {snapshot.key for snapshot in idle}
        return idle + [snapshot for snapshot in self.snapshots.youngest() if snapshot.key not in keys]

    def saved(self, snapshot: KVSnapshot) -> bytes | None:
        """The state of one that is worth keeping, wherever it is; None when it is gone."""
        entry = next((each for each in self._idle.values() if np.array_equal(each.tokens, snapshot.tokens)), None)
        return snapshot.state if entry is None else self._memory.save(entry.slot)

    def make_room(self, n_cells: int) -> bool:
        """Free at least ``n_cells`` by moving idle sequences out, oldest first."""
        while self._pool.n_free < n_cells:
            if not self.evict_oldest():
                return False
        return True

    def evict_oldest(self, *, but: int | None = None) -> bool:
        """Empty the idle slot that was not used for longest, into a snapshot if it is worth one; False if none is."""
        entry = next((entry for slot, entry in self._idle.items() if slot != but), None)
        if entry is None:
            return False
        self._stash(entry)
        self._empty(entry)
        return True

    def tidy(self) -> bool:
        """Bring what is youngest of what is not on disk there, from cells, then from RAM; False when all is done."""
        if not self.snapshots.has_disk:
            return False
        for entry in reversed(self._idle.values()):
            is_wanted = len(entry.tokens) >= MIN_SAVED and not entry.ephemeral
            if is_wanted and not self.snapshots.holds(entry.tokens, on_disk=True):
                first_position = self._first_saved(entry.slot, len(entry.tokens))
                state = self._memory.save(entry.slot)
                return self.snapshots.write(entry.tokens, first_position, state, entry.tags)
        return self.snapshots.tidy()

    def purge(self, tags: Iterable[str]) -> int:
        """Remove what belongs to these owners alone, see ``purging``; the number of states removed."""
        return self.snapshots.purge(tags, self._empty)

    def close(self, timeout_secs: float) -> None:
        """Bring to disk what can be brought there in time."""
        while self.tidy():
            pass
        self.snapshots.close(timeout_secs)

    def check(self) -> None:
        """Every idle slot holds, by the model's own count, the cells and tokens that the books say."""
        for slot, entry in self._idle.items():
            counts = (len(entry.tokens), self._pool.cached.get(slot), self._memory.n_positions(slot))
            if len(set(counts)) != 1:
                raise AccountingError(f"idle slot {slot}: {counts} tokens, cells and positions; {self._pool}")
        if set(self._idle) != set(self._pool.cached):
            raise AccountingError(f"idle slots {sorted(self._idle)} are cached; {self._pool}")

    # ---- slots ----

    def _take_slot(self, *, but: int | None) -> int | None:
        if not self._pool.has_free_slot and not self.evict_oldest(but=but):
            return None
        return self._pool.take_slot()

    def _continue(self, match: PrefixMatch) -> int:
        """Make the matched idle slot live, trimmed to the common tokens."""
        entry = self._idle.pop(match.slot if match.slot is not None else -1)
        self._index.remove(entry.tokens, entry)
        self._pool.revive(entry.slot)
        self.snapshots.pass_by(entry.tokens)
        if match.n_tokens < len(entry.tokens):
            self._memory.trim(entry.slot, match.n_tokens)
            self._pool.drain(entry.slot, len(entry.tokens) - match.n_tokens)
        return entry.slot

    def _fill(self, slot: int, match: PrefixMatch, state: bytes | None) -> bool:
        """Bring the matched tokens into an empty live slot; False when that failed and it is empty still."""
        entry = match.entry
        if isinstance(entry, CellEntry):
            self._memory.copy(entry.slot, slot, match.n_tokens)
            self._pool.share(entry.slot, slot, match.n_tokens)
            if entry.slot in self._idle:
                self._idle[entry.slot] = self._idle.pop(entry.slot)  # the youngest now
            return True
        if state is None or not self._load(slot, entry, state):
            return False
        self._pool.fill(slot, len(entry.tokens))
        # What was really brought back decides, not what was written down about it.
        if self._n_usable(CellEntry(slot, entry.tokens), match.n_tokens) < match.n_tokens:
            self._memory.remove(slot)
            self._pool.drain(slot, len(entry.tokens))
            return False
        if match.n_tokens < len(entry.tokens):
            self._memory.trim(slot, match.n_tokens)
            self._pool.drain(slot, len(entry.tokens) - match.n_tokens)
        self.snapshots.pass_by(entry.tokens)
        return True

    def _load(self, slot: int, snapshot: KVSnapshot, state: bytes) -> bool:
        """Into cells that are made free for it; by the books there may be some where the model has none left."""
        n_tokens = len(snapshot.tokens)
        for _ in range(MAX_LOADS):
            if self.make_room(n_tokens) and self._memory.load(slot, state):
                if self._memory.n_positions(slot) == n_tokens:
                    return True
                self._memory.remove(slot)
                break
            if not self.evict_oldest():
                break
        self.snapshots.drop(snapshot)
        return False

    def _state(self, match: PrefixMatch | None) -> bytes | None:
        return self.snapshots.state(match.entry) if match and isinstance(match.entry, KVSnapshot) else None

    def _stash(self, entry: CellEntry, *, only_ram: bool = False) -> None:
        """Save its state, if it is worth one and held nowhere yet."""
        tokens = entry.tokens
        if len(tokens) < MIN_SAVED or self.snapshots.is_off:
            return
        if self.snapshots.holds(tokens):
            self.snapshots.add_tags(tokens, entry.tags)
            return
        state = self._memory.save(entry.slot)
        entry.is_bulky = not self.snapshots.fits(len(state) + tokens.nbytes)
        if not (only_ram and entry.is_bulky):
            first_position = self._first_saved(entry.slot, len(tokens))
            self.snapshots.put(tokens, first_position, state, ephemeral=entry.ephemeral, tags=entry.tags)

    def _first_saved(self, slot: int, n_tokens: int) -> int:
        """A state leaves out what the next position does not see, whether it was forgotten already or not."""
        window = self._memory.window
        return max(self._memory.first_position(slot), n_tokens - window + 1) if window else 0

    def _empty(self, entry: CellEntry) -> None:
        del self._idle[entry.slot]
        self._index.remove(entry.tokens, entry)
        self._memory.remove(entry.slot)
        self._pool.release(entry.slot)


def _on_its_way(entry: CellEntry | KVSnapshot, n_tokens: int, priority: int) -> Sequence | None:
    """The live sequence, if it is one and need not wait for us, that is still computing the common tokens."""
    owner = entry.owner if isinstance(entry, CellEntry) else None
    if owner is None or owner.state is not SequenceState.PREFILL or owner.priority > priority:
        return None
    return owner if owner.n_computed < n_tokens else None


def _slot_of(sequence: Sequence) -> int:
    if sequence.slot is None:
        raise AccountingError(f"sequence {sequence.id} runs without a slot")
    return sequence.slot
