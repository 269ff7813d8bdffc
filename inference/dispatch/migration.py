"""The way to the card and the way back: who carries what, and whether it has arrived. Knows no lease, no stages."""

from inference.dispatch.active_generations import ActiveGenerations
from inference.dispatch.gpu_session import GpuSession
from inference.dispatch.runner_slot import RunnerSlot
from inference.dispatch.state_folder import StateFolder
from inference.dispatch.state_transfer import BACK_BUDGET_MS, LAST_BUDGET_MS, StateTransfer
from inference.engine.protocol.frames import CacheExported, Exported, Imported


class Migration:
    """Of one stay after the other."""

    def __init__(self, cpu: RunnerSlot, gpu: RunnerSlot, generations: ActiveGenerations, folder: StateFolder) -> None:
        self._cpu, self._gpu, self._generations, self._folder = cpu, gpu, generations, folder
        self._up: StateTransfer | None = None
        self._down: StateTransfer | None = None

    def copy_ahead(self) -> None:
        """While the card's runner loads."""
        # The CPU's runner may not have read yet what came back to it last; everybody else has.
        self._folder.clear(but=None if self._down is None else self._down.folder)
        self._up, self._down = StateTransfer(self._cpu, self._gpu, self._generations, self._folder), None
        self._up.copy_ahead()

    def go_up(self, now: float) -> None:
        if self._up is not None:
            self._up.deliver_copies()
            self._up.move(now, budget_ms=LAST_BUDGET_MS)

    def go_down(self, now: float) -> None:
        self._down = StateTransfer(self._gpu, self._cpu, self._generations, self._folder)
        self._down.move(now, budget_ms=BACK_BUDGET_MS, excludes_imported=True)

    def answered(self, device: str, frame: Exported | CacheExported | Imported, stay: GpuSession) -> None:
        """A runner has given out, or taken in, what it was asked to."""
        carrier = self._up if device == self._cpu.device else self._down
        match frame:
            case Imported(n_states=n_states):
                stay.n_snapshots += n_states
                stay.copied(0, frame.ms)
            case Exported() if carrier is not None:
                stay.moved(frame)
                carrier.sequences_left(frame)
            case CacheExported() if carrier is not None:
                stay.copied(frame.n_bytes, frame.ms)
                carrier.copies_made(frame)

    def cpu_exited(self) -> None:
        if self._up is not None:
            self._up.source_gone()

    def stop(self) -> None:
        """The card's runner has ended."""
        if self._up is not None:
            self._up.stop()

    @property
    def is_settled(self) -> bool:
        """The CPU's runner owes no answer; one that came later would count as the next way's."""
        return self._up is None or self._up.is_done

    def is_up(self) -> bool:
        """Everything has left the CPU; if so, the last copies are on their way, too."""
        return _is_through(self._up)

    def is_down(self) -> bool:
        return _is_through(self._down)


def _is_through(carrier: StateTransfer | None) -> bool:
    if carrier is None or not carrier.is_done:
        return False
    carrier.deliver_copies()
    return True
