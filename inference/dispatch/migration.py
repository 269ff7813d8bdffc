"""State transfer of the current GPU session: to the GPU, and back. Knows no lease and no GPU states."""

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.gpu_session import MoveTotals
from inference.dispatch.runner_slot import RunnerSlot
from inference.dispatch.state_folder import StateFolder
from inference.dispatch.state_transfer import BACK_BUDGET_MS, LAST_BUDGET_MS, StateTransfer
from inference.engine.protocol.frames import CacheExported, Exported, Imported


class Migration:
    """Reused across sessions."""

    def __init__(self, cpu: RunnerSlot, gpu: RunnerSlot, generations: ActiveGenerations, folder: StateFolder) -> None:
        self._cpu, self._gpu, self._generations, self._folder = cpu, gpu, generations, folder
        self._to_gpu: StateTransfer | None = None
        self._to_cpu: StateTransfer | None = None

    def copy_ahead(self) -> None:
        """Begin to copy checkpoints while the GPU's runner loads."""
        # The CPU's runner may not have read yet the states of the last move back; every other file is unused.
        self._folder.clear(but=None if self._to_cpu is None else self._to_cpu.folder)
        self._to_gpu = StateTransfer(self._cpu, self._gpu, self._generations, self._folder)
        self._to_cpu = None
        self._to_gpu.copy_ahead()

    def move_to_gpu(self, now: float) -> None:
        if self._to_gpu is not None:
            self._to_gpu.deliver_copies()
            self._to_gpu.move(now, budget_ms=LAST_BUDGET_MS)

    def move_to_cpu(self, now: float) -> None:
        self._to_cpu = StateTransfer(self._gpu, self._cpu, self._generations, self._folder)
        self._to_cpu.move(now, budget_ms=BACK_BUDGET_MS, excludes_imported=True)

    def handle_reply(self, device: str, frame: Exported | CacheExported | Imported, totals: MoveTotals) -> None:
        """Take in the reply of a runner to an export or import."""
        transfer = self._to_gpu if device == self._cpu.device else self._to_cpu
        match frame:
            case Imported(n_states=n_states):
                totals.add_import(n_states, frame.ms)
            case Exported() if transfer is not None:
                totals.add_sequences(frame)
                transfer.sequences_exported(frame)
            case CacheExported() if transfer is not None:
                totals.add_copies(frame.n_bytes, frame.ms)
                transfer.copies_made(frame)

    def cpu_exited(self) -> None:
        if self._to_gpu is not None:
            self._to_gpu.source_exited()

    def gpu_exited(self) -> None:
        if self._to_gpu is not None:
            self._to_gpu.stop()

    @property
    def is_settled(self) -> bool:
        """True when the CPU's runner owes no reply; a later one would count for the next session."""
        return self._to_gpu is None or self._to_gpu.is_done

    def is_on_gpu(self) -> bool:
        """Return whether everything has left the CPU; if so, the last copies are delivered too."""
        return _is_delivered(self._to_gpu)

    def is_on_cpu(self) -> bool:
        return _is_delivered(self._to_cpu)


def _is_delivered(transfer: StateTransfer | None) -> bool:
    if transfer is None or not transfer.is_done:
        return False
    transfer.deliver_copies()
    return True
