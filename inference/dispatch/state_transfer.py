"""Transfer of sequences and checkpoints between two runners, as files in a tmpfs. Knows no lease and no GPU states.

Active sequences are exported by their runner, and their files stay with the generations; checkpoints are copied ahead
of them, while decoding goes on, and once more at the end.
"""

from pathlib import Path

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.runner_slot import RunnerSlot
from inference.dispatch.state_folder import StateFolder
from inference.engine.protocol.frames import CacheExported, Export, ExportCache, Exported, Import

# A pause of the running answers each time; what is left is copied in the next round.
AHEAD_BUDGET_MS = 30.0
LAST_BUDGET_MS = 60.0
# On the way back the other program waits.
BACK_BUDGET_MS = 250.0


class StateTransfer:
    """One way, from one runner to another; a new one for the way back."""

    def __init__(
        self, source: RunnerSlot, target: RunnerSlot, generations: ActiveGenerations, folder: StateFolder
    ) -> None:
        self.source, self.target = source, target
        self._n_awaited = 0  # answers of the source
        self._generations = generations
        self.folder = folder.new()
        self._max_bytes = folder.max_bytes
        self._paths: list[str] = []  # copied, and not yet given to the target
        self._given: list[str] = []
        self._is_over = False
        self._has_copied = False
        self._is_ahead = False  # no sequence has left: copies are made while there is time

    @property
    def is_done(self) -> bool:
        """Whether the source has answered everything."""
        return self._n_awaited == 0

    def copy_ahead(self) -> None:
        """Begin to copy what may be gone on from; the rest follows by itself as long as nothing else is asked for."""
        self._is_ahead = True
        self._copy(AHEAD_BUDGET_MS)

    def move(self, now: float, *, budget_ms: float, excludes_imported: bool = False) -> None:
        """Everything that generations in the source, then what else may be gone on from."""
        self._is_ahead = False
        leaving = self._generations.on(self.source.device)
        for generation in leaving:
            generation.is_leaving, generation.moved_at = True, now
        if self.source.ready is not None:  # else nothing generations there, and nobody would answer
            self.source.send(Export([generation.sequence_id for generation in leaving], str(self.folder)))
            self._n_awaited += 1
        self._copy(budget_ms, excludes_imported=excludes_imported)

    def sequences_left(self, frame: Exported) -> None:
        self._n_awaited -= 1
        self._generations.exported(self.source.device, frame)

    def copies_made(self, frame: CacheExported) -> None:
        self._n_awaited -= 1
        self._max_bytes -= frame.n_bytes
        self._paths += frame.paths
        if self._is_over:
            self.stop()
        elif self._is_ahead and not frame.is_complete:
            self._copy(AHEAD_BUDGET_MS)

    def deliver_copies(self) -> None:
        """Give the target what was copied so far. The youngest are first in their round."""
        if self.target.ready is None:
            self.stop()
            return
        self.target.send(Import(self._paths))
        self._given += self._paths
        self._paths = []

    def stop(self) -> None:
        """The target has ended: nobody reads copies any more, and with that removes them. Sequences keep theirs."""
        self._is_over = True
        for path in (*self._given, *self._paths):
            Path(path).unlink(missing_ok=True)
        self._given, self._paths = [], []

    def source_gone(self) -> None:
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
