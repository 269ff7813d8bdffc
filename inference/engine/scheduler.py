"""Which tokens are computed next, and in whose cells: admission, order, room. Bookkeeping only, no model calls but
to forget cells.

One step holds every running answer's next token first, then as much of the waiting prompts as the cost model allows.
"""

from bisect import insort
from dataclasses import dataclass

from inference.engine.backend import Memory, Slice
from inference.engine.cache import IdleCache
from inference.engine.cost import StepCost
from inference.engine.errors import BooksError
from inference.engine.pool import Pool
from inference.engine.sequence import Sequence, State


@dataclass(frozen=True, slots=True)
class Planned:
    """The next ``n_tokens`` of a sequence are in the coming batch."""

    sequence: Sequence
    n_tokens: int

    @property
    def completes(self) -> bool:
        """Whether the last known token is among them, so that a new one follows from its logits."""
        return self.n_tokens == self.sequence.n_pending

    def as_slice(self) -> Slice:
        sequence = self.sequence
        if sequence.slot is None:
            raise BooksError(f"sequence {sequence.id} is planned without a slot")
        start = sequence.n_computed
        tokens = sequence.tokens[start : start + self.n_tokens]
        return Slice(sequence.slot, start, tokens, self.completes)


class Scheduler:
    """Owns the waiting and the running sequences of one runner."""

    def __init__(self, pool: Pool, memory: Memory, cost: StepCost, *, parallel: int, batch_size: int) -> None:
        self.pool = pool
        self.cache = IdleCache(pool, memory)
        self.waiting: list[Sequence] = []  # by rank
        self.running: list[Sequence] = []  # by admission
        self._memory = memory
        self._cost = cost
        self._parallel = parallel
        self._batch_size = batch_size

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=lambda waiting: waiting.rank)

    def find(self, sequence_id: str) -> Sequence | None:
        return next((each for each in (*self.running, *self.waiting) if each.id == sequence_id), None)

    def plan(self) -> list[Planned]:
        """The next batch; empty when there is nothing to do."""
        self._admit()
        while not self._make_room(sum(each.state is State.DECODE for each in self.running)):
            self._preempt()
        answers = [Planned(each, 1) for each in self.running if each.state is State.DECODE]
        return answers + self._plan_prefill(len(answers))

    def done(self, planned: list[Planned]) -> None:
        """The batch was decoded: its tokens are in their cells."""
        for each in planned:
            sequence = each.sequence
            if sequence.slot is None:
                raise BooksError(f"sequence {sequence.id} was decoded without a slot")
            self.pool.fill(sequence.slot, each.n_tokens)
            sequence.n_computed += each.n_tokens

    def end(self, sequence: Sequence) -> None:
        """Take a sequence out, waiting or running; its cells stay for the next turn if they may."""
        sequence.move(State.ENDED)
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        if sequence.cache_prompt and sequence.n_computed > 0:
            self.cache.keep(sequence.slot, sequence.tokens[: sequence.n_computed])
        else:
            self._memory.remove(sequence.slot)
            self.pool.release(sequence.slot)
        sequence.slot = None

    def relieve(self) -> None:
        """The model had no cells for a batch that fits by the books: give it some room."""
        if self.cache.evict_oldest():
            return
        if len(self.running) < 2:
            raise BooksError(f"the model has no room for a single sequence; {self.pool}")
        self._preempt()

    def check(self) -> None:
        """With nothing running, the books balance and agree with the model's own counts."""
        self.pool.check()
        self.cache.check()
        if self.pool.used:
            raise BooksError(f"nothing runs, but slots are in use; {self.pool}")

    # ---- admission ----

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._parallel:
            sequence = self.waiting[0]
            if not self._try_admit(sequence):
                return
            self.waiting.pop(0)
            self.running.append(sequence)
            sequence.move(State.PREFILL)

    def _try_admit(self, sequence: Sequence) -> bool:
        """Give it a slot if all its known tokens, and one more, will find cells beside the others' known tokens."""
        match = self.cache.match(sequence.tokens) if sequence.cache_prompt else None
        n_reused = match.n_tokens if match else 0
        n_promised = sum(each.n_pending for each in self.running)
        # What is reused counts among the cached cells; it is there already and asks for no room.
        n_room = self.pool.n_free + self.pool.n_cached - n_reused - n_promised
        if self.running and n_room < len(sequence.tokens) - n_reused + 1:
            return False
        if match:
            self.cache.take(match)
            sequence.slot = match.slot
        else:
            if not self.pool.has_free_slot and not self.cache.evict_oldest():
                return False
            sequence.slot = self.pool.take_slot()
        sequence.n_computed = sequence.n_cached = n_reused
        return True

    # ---- room ----

    def _make_room(self, n_cells: int) -> bool:
        """Free at least ``n_cells`` by forgetting idle sequences."""
        while self.pool.n_free < n_cells:
            if not self.cache.evict_oldest():
                return False
        return True

    def _preempt(self) -> None:
        """Take the cells of the lowest in rank; it waits, and its tokens are computed again when there is room."""
        victim = max(self.running, key=lambda each: each.rank)
        if victim.slot is None:
            raise BooksError(f"sequence {victim.id} runs without a slot")
        self._memory.remove(victim.slot)
        self.pool.release(victim.slot)
        self.running.remove(victim)
        victim.slot = None
        victim.n_computed = 0
        victim.move(State.WAITING)
        self.add(victim)

    # ---- prompts ----

    def _plan_prefill(self, n_decode: int) -> list[Planned]:
        """Slices of prompts within the step's budget.

        The first in rank gets at least half of it, what remains goes to the shortest: a short question does not wait
        for a long one to be read, and the long one goes on all the time.
        """
        prompts = sorted((each for each in self.running if each.state is State.PREFILL), key=lambda each: each.rank)
        if not prompts:
            return []
        budget = min(self._cost.n_prefill_tokens(n_decode), self._batch_size - n_decode)
        n_wanted = n_decode + min(budget, sum(each.n_pending for each in prompts))
        self._make_room(n_wanted)
        budget = min(budget, self.pool.n_free - n_decode)
        shares = _shares(prompts, budget)
        return [Planned(each, n_tokens) for each, n_tokens in zip(prompts, shares, strict=True) if n_tokens > 0]


def _shares(prompts: list[Sequence], budget: int) -> list[int]:
    """How many tokens of the budget each prompt gets; ``prompts`` are in rank order."""
    shares = [0] * len(prompts)
    shares[0] = min(prompts[0].n_pending, (budget + 1) // 2 if len(prompts) > 1 else budget)
    left = budget - shares[0]
    for index in sorted(range(len(prompts)), key=lambda index: prompts[index].n_pending):
        extra = min(prompts[index].n_pending - shares[index], left)
        shares[index] += extra
        left -= extra
    return shares
