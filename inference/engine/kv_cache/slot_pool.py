"""Accounting of KV cells: how many each slot holds, and whether a live or an idle sequence holds them.

Counts only; the cells themselves belong to the backend.
"""

from dataclasses import dataclass

from inference.engine.errors import AccountingError


@dataclass(eq=False, slots=True)
class _Run:
    """Consecutive cells held by the same slots; counted once, however many slots hold them."""

    n_cells: int
    slots: set[int]


class SlotPool:
    """``n_free`` is updated by its own additions, so that ``check`` compares two independent counts.

    slot 0:  [ run a: 900 cells, slots 0 1 2 ][ run b: 80 cells, slot 0 ]
    slot 1:  [ run a                         ][ run c: 15 cells, slot 1 ]
    """

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self.n_free = n_cells
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self._n_slots = n_slots
        self._runs: dict[int, list[_Run]] = {}
        self.used: dict[int, int] = {}  # live slot -> cells it holds, shared ones included
        self.cached: dict[int, int] = {}  # idle slot -> cells it holds

    @property
    def n_used(self) -> int:
        """Cells that a live sequence holds."""
        # Read at every step, so that only live slots are looked at.
        return sum({id(run): run.n_cells for slot in self.used for run in self._runs[slot]}.values())

    @property
    def n_cached(self) -> int:
        """Cells that only idle sequences hold."""
        # A run is counted at the lowest of the slots that hold it.
        distinct = (run for slot, runs in self._runs.items() for run in runs if slot == min(run.slots))
        return sum(run.n_cells for run in distinct if not self._is_live(run))

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def n_idle_only(self, slot: int, n_cells: int) -> int:
        """Return how many of the first ``n_cells`` of a slot no live sequence holds."""
        n_idle = 0
        for run in self._runs[slot]:
            if not self._is_live(run):
                n_idle += min(run.n_cells, n_cells)
            n_cells -= run.n_cells
            if n_cells <= 0:
                break
        return n_idle

    def take_slot(self) -> int | None:
        """Return an empty slot for a live sequence; ``None`` when every slot is in use."""
        if not self._free_slots:
            return None
        slot = self._free_slots.pop()
        self.used[slot] = 0
        self._runs[slot] = []
        return slot

    def fill(self, slot: int, n_cells: int) -> None:
        """Record that ``n_cells`` more were decoded or loaded into a live slot; raises ``AccountingError``."""
        if n_cells > self.n_free:
            raise AccountingError(f"slot {slot} filled {n_cells} cells of {self}")
        self.n_free -= n_cells
        self.used[slot] += n_cells
        runs = self._runs[slot]
        if runs and runs[-1].slots == {slot}:
            runs[-1].n_cells += n_cells
        else:
            runs.append(_Run(n_cells, {slot}))

    def share(self, source: int, target: int, n_cells: int) -> None:
        """Let the empty live ``target`` hold the first ``n_cells`` of ``source``; raises ``AccountingError``."""
        n_source = self.used[source] if source in self.used else self.cached[source]
        if self.used[target] or n_cells > n_source:
            raise AccountingError(f"slot {target} cannot share {n_cells} cells of slot {source}: {self}")
        shared = self._cut(source, n_cells)
        for run in shared:
            run.slots.add(target)
        self._runs[target] = shared
        self.used[target] = n_cells

    def shrink(self, slot: int, n_cells: int) -> None:
        """Take the last ``n_cells`` from a live slot; cells that other slots hold are not free by that."""
        remaining = self._cut(slot, self.used[slot] - n_cells)
        self._leave_runs(slot, self._runs[slot][len(remaining) :])
        self._runs[slot] = remaining
        self.used[slot] -= n_cells

    def make_idle(self, slot: int) -> None:
        self.cached[slot] = self.used.pop(slot)

    def make_live(self, slot: int) -> None:
        self.used[slot] = self.cached.pop(slot)

    def release(self, slot: int) -> None:
        """Empty a slot, live or idle."""
        (self.used if slot in self.used else self.cached).pop(slot)
        self._leave_runs(slot, self._runs.pop(slot))
        self._free_slots.append(slot)

    def check(self) -> None:
        """Check that free, used and cached cells make up the pool; raises ``AccountingError`` with all the numbers."""
        slots = [*self._free_slots, *self.used, *self.cached]
        holdings = {slot: sum(run.n_cells for run in runs) for slot, runs in self._runs.items()}
        if (
            self.n_free + self.n_used + self.n_cached != self.n_cells
            or sorted(slots) != list(range(self._n_slots))
            or holdings != self.used | self.cached
        ):
            raise AccountingError(f"the cells of the pool do not add up: {self}")

    def __str__(self) -> str:
        return (
            f"{self.n_cells} cells ({self.n_free} free, {self.n_used} used by {self.used}, "
            f"{self.n_cached} cached by {self.cached}), free slots {sorted(self._free_slots)} of {self._n_slots}"
        )

    def _is_live(self, run: _Run) -> bool:
        return any(slot in self.used for slot in run.slots)

    def _cut(self, slot: int, n_cells: int) -> list[_Run]:
        """Return the runs of the first ``n_cells``; a run across that border is cut in two for all its slots."""
        head: list[_Run] = []
        for run in list(self._runs[slot]):
            if n_cells <= 0:
                break
            if run.n_cells > n_cells:
                rest = _Run(run.n_cells - n_cells, set(run.slots))
                run.n_cells = n_cells
                for holder in run.slots:
                    runs = self._runs[holder]
                    runs.insert(next(index for index, other in enumerate(runs) if other is run) + 1, rest)
            head.append(run)
            n_cells -= run.n_cells
        return head

    def _leave_runs(self, slot: int, runs: list[_Run]) -> None:
        for run in runs:
            run.slots.remove(slot)
            if not run.slots:
                self.n_free += run.n_cells
