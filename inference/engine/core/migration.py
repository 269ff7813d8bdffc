"""Transfer of sequences and KV states between runners; called between steps on the loop's thread.

A state that cannot be transferred is never an error: the receiving runner computes the tokens again.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from inference.engine.core.scheduler import Scheduler
from inference.engine.core.state_writer import StateWriter, snapshot_of
from inference.engine.kv_cache.entries import snapshot_key
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.state_files import StateHeader, consume_state
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

log = logging.getLogger(__name__)

# Maps a sequence to the ms it has spent in prefill and in decode.
ElapsedMs = Callable[[Sequence], tuple[float, float]]


class SequenceMigrator:
    """``fingerprint`` is that of ``writer``. ``maps``: received states are not copied."""

    def __init__(
        self, scheduler: Scheduler, cache: PrefixCache, fingerprint: str, writer: StateWriter, *, maps: bool
    ) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._fingerprint = fingerprint
        self._writer = writer
        self._maps = maps
        self._moved: set[str] = set()  # snapshot keys of the last export: the receiver has their states
        self._copied: set[str] = set()  # snapshot keys that the receiver of the current copies has
        self._imported: set[str] = set()  # snapshot keys from another runner that are still here

    # ---- out ----

    def export(self, frame: Export, elapsed_ms: ElapsedMs) -> Exported:
        """Remove sequences and write their states; their cells become idle, in case they come back."""
        began = time.monotonic()
        exported = []
        self._moved.clear()
        for sequence_id in frame.sequence_ids:
            sequence = self._scheduler.sequences.find(sequence_id)
            if sequence is None:
                continue
            state = self._cache.state_of(sequence)
            path, n_bytes = "", 0
            if state is not None:
                snapshot = snapshot_of(sequence)
                path, n_bytes = self._writer.write(Path(frame.folder), snapshot, state)
                if path:
                    self._moved.add(snapshot.key)
            exported.append(ExportedSequence(sequence.id, path, n_bytes, sequence.n_cached, *elapsed_ms(sequence)))
            self._scheduler.end(sequence)
        return Exported(exported, _ms_since(began))

    def export_cache(self, frame: ExportCache) -> CacheExported:
        """Copy reusable states, youngest first, within the frame's budget of ms and bytes."""
        began = time.monotonic()
        if not frame.is_continuation:
            self._copied.clear()
        paths: list[str] = []
        n_total = 0
        skipped = self._moved | self._imported if frame.excludes_imported else self._moved
        for snapshot in self._cache.exportable():
            if snapshot.key in self._copied or snapshot.key in skipped:
                continue
            if _ms_since(began) > frame.budget_ms:
                return CacheExported(paths=paths, n_bytes=n_total, ms=_ms_since(began), is_complete=False)
            self._copied.add(snapshot.key)
            state = self._cache.exported_state(snapshot)
            if state is None or len(state) > frame.max_bytes - n_total:
                continue
            path, n_bytes = self._writer.write(Path(frame.folder), snapshot, state)
            n_total += n_bytes
            paths += [path] if path else []
        return CacheExported(paths=paths, n_bytes=n_total, ms=_ms_since(began), is_complete=True)

    # ---- in ----

    def adopt_state(self, submit: Submit, sequence: Sequence) -> None:
        """Give an arriving sequence the state named in its frame, if that belongs to its tokens."""
        received = self._consume(submit.state, keeps_file=submit.keeps_state) if submit.state else None
        if received is None:
            return
        header, state = received
        n_tokens = len(header.tokens)
        # At least one token must be computed: the logits after the last one are not part of a state.
        if n_tokens < len(sequence.tokens) and header.tokens.tolist() == sequence.tokens[:n_tokens]:
            sequence.swapped_state, sequence.n_swapped = state, n_tokens
            sequence.checkpoint_bytes = header.n_bytes if submit.keeps_state else 0
        else:
            log.warning("state of other tokens ignored sequence=%s", sequence.id)

    def import_states(self, frame: Import) -> Imported:
        """Store states from files; those that cannot be used are dropped."""
        began = time.monotonic()
        n_states = 0
        self._imported &= {snapshot.key for snapshot in self._cache.exportable()}
        # The files come youngest first, and the youngest must be stored last.
        for path in reversed(frame.paths):
            received = self._consume(path)
            if received is None:
                continue
            header, state = received
            snapshots = self._cache.snapshots
            self._imported.add(snapshot_key(header.tokens, header.caller))
            if not snapshots.contains(header.tokens, header.caller):
                snapshots.put(
                    header.tokens,
                    header.first_position,
                    state,
                    ephemeral=header.ephemeral,
                    tags=frozenset(header.tags),
                    caller=header.caller,
                )
            n_states += snapshots.contains(header.tokens, header.caller)
        return Imported(n_states, _ms_since(began))

    def _consume(self, path: str, *, keeps_file: bool = False) -> tuple[StateHeader, bytes] | None:
        try:
            return consume_state(Path(path), self._fingerprint, maps=self._maps, keeps_file=keeps_file)
        except (OSError, ValueError) as error:
            log.warning("received state unusable error=%s", error)
            return None


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000
