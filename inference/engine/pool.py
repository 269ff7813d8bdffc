"""The books of a runner's memory: which slot holds how many cells, and whether a live or an idle sequence has them.

Counts only; the cells themselves are the backend's.
"""

from inference.engine.errors import BooksError


class Pool:
    """``n_free`` is kept by its own additions, so that ``check`` compares two independent counts."""

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self.n_free = n_cells
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self._n_slots = n_slots
        self.used: dict[int, int] = {}  # slot -> cells, live sequences
        self.cached: dict[int, int] = {}  # slot -> cells, idle ones

    @property
    def n_used(self) -> int:
        return sum(self.used.values())

    @property
    def n_cached(self) -> int:
        return sum(self.cached.values())

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def take_slot(self) -> int | None:
        """An empty slot for a live sequence; ``None`` when every slot is in use."""
        if not self._free_slots:
            return None
        slot = self._free_slots.pop()
        self.used[slot] = 0
        return slot

    def fill(self, slot: int, n_cells: int) -> None:
        """A live slot has been decoded ``n_cells`` further."""
        if n_cells > self.n_free:
            raise BooksError(f"slot {slot} filled {n_cells} cells of {self}")
        self.n_free -= n_cells
        self.used[slot] += n_cells

    def drain(self, slot: int, n_cells: int) -> None:
        """A live slot has given back its last ``n_cells``."""
        self.n_free += n_cells
        self.used[slot] -= n_cells

    def shelve(self, slot: int) -> None:
        """A live slot becomes idle with its cells."""
        self.cached[slot] = self.used.pop(slot)

    def revive(self, slot: int) -> None:
        """An idle slot becomes live with its cells."""
        self.used[slot] = self.cached.pop(slot)

    def release(self, slot: int) -> None:
        """A slot, live or idle, is empty."""
        cells = self.used.pop(slot) if slot in self.used else self.cached.pop(slot)
        self.n_free += cells
        self._free_slots.append(slot)

    def check(self) -> None:
        """Free, used and cached cells make up the pool, and every slot is somewhere exactly once."""
        slots = [*self._free_slots, *self.used, *self.cached]
        if self.n_free + self.n_used + self.n_cached != self.n_cells or sorted(slots) != list(range(self._n_slots)):
            raise BooksError(f"the books do not balance: {self}")

    def __str__(self) -> str:
        return (
            f"{self.n_cells} cells ({self.n_free} free, used {self.used}, cached {self.cached}), "
            f"free slots {sorted(self._free_slots)} of {self._n_slots}"
        )
