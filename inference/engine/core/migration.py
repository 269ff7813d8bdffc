"""Sequences and states that leave a runner for another one, or come from there; on the loop's thread, between steps.

What cannot be carried is never an error: whoever takes a sequence over without its state computes its tokens again.
"""

import logging
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from inference.engine.core.scheduler import Scheduler
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.snapshots import KVSnapshot, key_of
from inference.engine.kv_cache.state_files import SUFFIX, StateHeader, take_state, write_state
from inference.engine.protocol.frames import (
    CacheExported,
    Export,
    ExportCache,
    Exported,
    ExportedSequence,
    Import,
    Imported,
    Submit,
)
from inference.engine.sequences.sequence import Sequence

logger = logging.getLogger(__name__)

# From a sequence: how many ms it has read its prompt, and answered.
SequenceTimes = Callable[[Sequence], tuple[float, float]]


class SequenceMigrator:
    """``settings`` is the fingerprint of what makes a state usable; without one only tokens move. ``maps``: what comes
    in is not copied."""

    def __init__(self, scheduler: Scheduler, cache: PrefixCache, settings: str, *, maps: bool) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._settings = settings
        self._maps = maps
        self._numbers = count(1)
        self._given: set[str] = set()  # keys of the sequences that left last: the receiver has their states
        self._copied: set[str] = set()  # keys that the receiver of the present copies has
        self._foreign: set[str] = set()  # keys that came from another runner, as far as they are here still

    # ---- out ----

    def export(self, frame: Export, times: SequenceTimes) -> Exported:
        """Sequences leave; their cells stay here as those of ended ones do, should they come back."""
        began = time.monotonic()
        given = []
        self._given.clear()
        for sequence_id in frame.sequence_ids:
            sequence = self._scheduler.find(sequence_id)
            if sequence is not None:
                given.append(self._give(sequence, Path(frame.folder), times))
                self._scheduler.end(sequence)
        return Exported(given, _ms_since(began))

    def _give(self, sequence: Sequence, folder: Path, times: SequenceTimes) -> ExportedSequence:
        state = self._cache.state_of(sequence)
        path, n_bytes = "", 0
        if state is not None:
            # One that waits with a state of its own has that much computed, whatever its count says.
            n_tokens = sequence.n_computed or sequence.n_swapped
            tokens = np.asarray(sequence.tokens[:n_tokens], dtype=np.int32)
            carried = KVSnapshot(tokens, 0, ephemeral=sequence.ephemeral, tags=sequence.tags)
            path, n_bytes = self._write(folder, carried, state)
            if path:
                self._given.add(key_of(tokens))
        return ExportedSequence(sequence.id, path, n_bytes, sequence.n_cached, *times(sequence))

    def export_cache(self, frame: ExportCache) -> CacheExported:
        began = time.monotonic()
        if not frame.is_continuation:
            self._copied.clear()
        paths: list[str] = []
        n_total = 0
        left_out = self._given | self._foreign if frame.excludes_imported else self._given
        for snapshot in self._cache.worth_keeping():
            if snapshot.key in self._copied or snapshot.key in left_out:
                continue
            if _ms_since(began) > frame.budget_ms:
                return CacheExported(paths=paths, n_bytes=n_total, ms=_ms_since(began), is_complete=False)
            self._copied.add(snapshot.key)
            path, n_bytes = self._copy(snapshot, Path(frame.folder), frame.max_bytes - n_total)
            n_total += n_bytes
            paths += [path] if path else []
        return CacheExported(paths=paths, n_bytes=n_total, ms=_ms_since(began), is_complete=True)

    def _copy(self, snapshot: KVSnapshot, folder: Path, max_bytes: int) -> tuple[str, int]:
        state = self._cache.saved(snapshot)
        if state is None or len(state) > max_bytes:
            return "", 0
        return self._write(folder, snapshot, state)

    def _write(self, folder: Path, snapshot: KVSnapshot, state: bytes) -> tuple[str, int]:
        """Path and size; no path when there is no room for it, or nobody could tell that it fits."""
        if not self._settings:
            return "", 0
        path = folder / f"{next(self._numbers)}{SUFFIX}"
        head = StateHeader(
            self._settings,
            snapshot.tokens.tobytes(),
            snapshot.first_position,
            snapshot.ephemeral,
            len(state),
            sorted(snapshot.tags),
        )
        try:
            return str(path), write_state(path, head, state)
        except OSError as error:
            logger.warning("%d tokens move without their state: %s", len(snapshot.tokens), error)
            return "", 0

    # ---- in ----

    def take_state(self, submit: Submit, sequence: Sequence) -> None:
        """Give an arriving sequence the cells it had elsewhere, if they are those of its tokens."""
        found = self._take(submit.state) if submit.state else None
        if found is None:
            return
        head, state = found
        n_tokens = len(head.tokens)
        # At least one token has to be computed: the logits after the last one did not come along.
        if n_tokens < len(sequence.tokens) and head.tokens.tolist() == sequence.tokens[:n_tokens]:
            sequence.swapped_state, sequence.n_swapped = state, n_tokens
        else:
            logger.warning("the state of %s has other tokens than the sequence", sequence.id)

    def take_in(self, frame: Import) -> Imported:
        began = time.monotonic()
        n_states = 0
        self._foreign &= {snapshot.key for snapshot in self._cache.worth_keeping()}
        # The youngest came first, and is to be the youngest here.
        for path in reversed(frame.paths):
            found = self._take(path)
            if found is None:
                continue
            head, state = found
            snapshot = KVSnapshot(head.tokens, head.first_position)
            self._foreign.add(snapshot.key)
            if not self._cache.snapshots.holds(head.tokens):
                self._cache.snapshots.put(
                    head.tokens, head.first_position, state, ephemeral=head.ephemeral, tags=frozenset(head.tags)
                )
            n_states += self._cache.snapshots.holds(head.tokens)
        return Imported(n_states, _ms_since(began))

    def _take(self, path: str) -> tuple[StateHeader, bytes] | None:
        try:
            return take_state(Path(path), self._settings, maps=self._maps)
        except (OSError, ValueError) as error:
            logger.warning("a state that was to move is of no use: %s", error)
            return None


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000
