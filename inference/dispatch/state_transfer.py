"""Transfer of sequences and checkpoints between two runners, as files in a tmpfs. Knows no lease and no GPU states.

Active sequences are exported by their runner, and each generation keeps the path of its file. Checkpoints are copied
before them, while decoding goes on, and once more at the end.
"""

from pathlib import Path

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.runner_slot import RunnerSlot
from inference.dispatch.state_folder import StateFolder
from inference.engine.protocol.frames import CacheExported, Export, ExportCache, Exported, Import

# Each round pauses decoding for this long; the next round copies the rest.
AHEAD_BUDGET_MS = 30.0
LAST_BUDGET_MS = 60.0
BACK_BUDGET_MS = 250.0  # to the CPU, while another tenant waits for the GPU


class StateTransfer:
    """Transfer in one direction; moving back takes another object."""

    def __init__(
        self, source: RunnerSlot, target: RunnerSlot, generations: ActiveGenerations, folder: StateFolder
    ) -> None:
        self.source, self.target = source, target
        self._n_awaited = 0  # replies of the source
        self._generations = generations
        self.folder = folder.new()
        self._max_bytes = folder.max_bytes
        self._paths: list[str] = []  # copied, and not yet delivered to the target
        self._delivered: list[str] = []
        self._is_stopped = False
        self._has_copied = False
        self._is_ahead = False  # no sequence is exported yet: copies are made round after round

    @property
    def is_done(self) -> bool:
        """True when the source has sent every reply."""
        return self._n_awaited == 0

    def copy_ahead(self) -> None:
        """Begin to copy checkpoints; further rounds follow until ``move``."""
        self._is_ahead = True
        self._copy(AHEAD_BUDGET_MS)

    def move(self, now: float, *, budget_ms: float, excludes_imported: bool = False) -> None:
        """Export every sequence of the source, then its checkpoints."""
        self._is_ahead = False
        exported = self._generations.on_device(self.source.device)
        for generation in exported:
            generation.location.is_exporting, generation.timing.exported_at = True, now
        if self.source.ready is not None:  # else it has no states and sends no reply
            self.source.send(Export([generation.sequence_id for generation in exported], str(self.folder)))
            self._n_awaited += 1
        self._copy(budget_ms, excludes_imported=excludes_imported)

    def sequences_exported(self, frame: Exported) -> None:
        self._n_awaited -= 1
        self._generations.sequences_exported(self.source.device, frame)

    def copies_made(self, frame: CacheExported) -> None:
        self._n_awaited -= 1
        self._max_bytes -= frame.n_bytes
        self._paths += frame.paths
        if self._is_stopped:
            self.stop()
        elif self._is_ahead and not frame.is_complete:
            self._copy(AHEAD_BUDGET_MS)

    def deliver_copies(self) -> None:
        """Have the target import the copies so far. The youngest are first in their round."""
        if self.target.ready is None:
            self.stop()
            return
        self.target.send(Import(self._paths))
        self._delivered += self._paths
        self._paths = []

    def stop(self) -> None:
        """Remove the copies: the target has exited and no longer reads them. Sequences keep their files."""
        self._is_stopped = True
        for path in (*self._delivered, *self._paths):
            Path(path).unlink(missing_ok=True)
        self._delivered, self._paths = [], []

    def source_exited(self) -> None:
        self._n_awaited = 0

    def _copy(self, budget_ms: float, *, excludes_imported: bool = False) -> None:
        if self._max_bytes <= 0 or self.source.ready is None:
            return
        self.source.send(
            ExportCache(
                folder=str(self.folder),
                max_bytes=self._max_bytes,
                budget_ms=budget_ms,
                is_continuation=self._has_copied,
                excludes_imported=excludes_imported,
            )
        )
        self._has_copied = True
        self._n_awaited += 1
