"""Checkpoints of prompts in progress: files from which the next runner continues if this one dies.

Written after a slice. The prefill after each pays for it: the next follows when the last one's time is at most
``COST_SHARE`` of the prefill since.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from inference.engine.core.planned_slice import PlannedSlice
from inference.engine.core.scheduler import Scheduler
from inference.engine.core.state_writer import StateWriter, snapshot_of
from inference.engine.protocol.frames import Checkpointed
from inference.engine.sequences.sequence import Sequence, SequenceState

COST_SHARE = 0.02
# Of the folder's free room; the rest is for sequences that move and for other users of the tmpfs.
SHARE_OF_ROOM = 0.5
REST_SECS = 60.0  # after a file that could not be written


class PrefillCheckpoints:
    """``interval_secs`` of prefill are not worth a file. A new file is written before the old one goes."""

    def __init__(
        self,
        scheduler: Scheduler,
        writer: StateWriter,
        *,
        interval_secs: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._writer = writer
        self._interval_secs = interval_secs
        self._clock = clock
        self._rests_until = 0.0

    def note_step(self, batch: list[PlannedSlice], secs: float) -> list[Checkpointed]:
        """Divide the time of a step among its prompts, and write the checkpoints that are due."""
        n_rows = sum(planned.n_rows for planned in batch)
        written = []
        for planned in batch:
            sequence = planned.sequence
            if not sequence.max_checkpoint_bytes or sequence.state is not SequenceState.PREFILL:
                continue
            sequence.unsaved_secs += secs * planned.n_rows / n_rows
            if sequence.unsaved_secs >= max(self._interval_secs, sequence.checkpoint_secs / COST_SHARE):
                written += self._write(sequence)
        return written

    def _write(self, sequence: Sequence) -> list[Checkpointed]:
        began = self._clock()
        if began < self._rests_until or self._scheduler.cache.snapshots.purged.covers(sequence.tags):
            return []
        state = self._scheduler.cache.state_of(sequence)
        path = ""
        if state is not None and self._has_room(sequence, len(state)):
            path, _ = self._writer.write(Path(sequence.checkpoint_folder), snapshot_of(sequence), state)
            self._rests_until = began if path else began + REST_SECS
        sequence.unsaved_secs, sequence.checkpoint_secs = 0.0, self._clock() - began
        if not path or state is None:
            return []
        sequence.checkpoint_bytes = len(state)
        return [Checkpointed(sequence_id=sequence.id, path=path, n_cached=sequence.n_cached)]

    def _has_room(self, sequence: Sequence, n_bytes: int) -> bool:
        registry = self._scheduler.sequences
        neighbours = (other for other in (*registry.running, *registry.waiting) if other is not sequence)
        n_left = sequence.max_checkpoint_bytes - sum(other.checkpoint_bytes for other in neighbours)
        try:
            status = os.statvfs(sequence.checkpoint_folder)
        except OSError:  # removed by the system, as some do when a user logs out
            return False
        return n_bytes <= min(n_left, status.f_bavail * status.f_frsize * SHARE_OF_ROOM)
