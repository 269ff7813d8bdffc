"""Composition of the next batch. Coordinates admission, decode and prefill planning; imports no native code.

A step holds the next token of every answer, or as many prompt tokens as the cost model allows, in turn; or both at once
where that is cheaper.
"""

from collections.abc import Callable

from inference.engine.core.admission import Admission
from inference.engine.core.batch_cost import BatchCost
from inference.engine.core.decode_planner import DecodePlanner
from inference.engine.core.planned_slice import PlannedSlice
from inference.engine.core.prefill_planner import PrefillPlanner
from inference.engine.core.sequence_registry import SequenceRegistry
from inference.engine.core.step_cost import StepCost
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.prefix_cache import PrefixCache, slot_of
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.sequences.sequence import Sequence


class Scheduler:
    """Sequence of calls in a step: ``plan``, then ``commit`` and ``accept_draft``, or ``recover_room``."""

    def __init__(
        self,
        pool: SlotPool,
        cache: PrefixCache,
        cost: StepCost,
        batch_cost: BatchCost,
        *,
        parallel: int,
        batch_size: int,
        draft_max: int = 0,
        mixes: bool = False,
    ) -> None:
        self.pool = pool
        self.cache = cache
        self.sequences = SequenceRegistry()
        self._admission = Admission(self.sequences, pool, cache, parallel=parallel)
        self._decode = DecodePlanner(
            self.sequences, pool, cache.idle, cost, batch_cost, draft_max=draft_max, mixes=mixes
        )
        self._prefill = PrefillPlanner(self.sequences, pool, cache.idle, cost, batch_size=batch_size)
        self._mixes = mixes
        self._n_steps = 0
        self._last_was_prefill = False
        self.n_accepted = 0  # draft tokens of the last batch that the sampler drew

    def plan(self) -> list[PlannedSlice]:
        """Return the next batch; empty when there is nothing to compute."""
        for sequence in self.sequences.running:
            if sequence.n_computed in sequence.checkpoints:
                self.cache.take_checkpoint(sequence)
        self._admission.admit_waiting()
        while not self.cache.idle.make_room(len(self.sequences.decoding)):
            self._admission.preempt()
        if self._mixes:
            decode = self._decode.plan()
            return decode + self._prefill.plan(sum(planned.n_rows for planned in decode))
        answers = self.sequences.decoding
        is_decode_turn = bool(answers) and (self._last_was_prefill or self._decode.finishes_first(answers))
        prompts = [] if is_decode_turn else self._prefill.plan(len(answers))
        self._last_was_prefill = bool(prompts)
        return prompts or self._decode.plan()

    def commit(self, batch: list[PlannedSlice]) -> None:
        """Record that the batch was decoded: its tokens are in their cells."""
        self._n_steps += 1
        self.n_accepted = 0
        self._decode.may_draft = True
        for planned in batch:
            sequence = planned.sequence
            self.pool.fill(slot_of(sequence), planned.n_rows)
            sequence.n_computed += planned.n_tokens
            sequence.last_step = self._n_steps

    def accept_draft(self, planned: PlannedSlice, n_accepted: int) -> None:
        """Keep the cells of the first ``n_accepted`` draft tokens and free those of the others."""
        n_drafted = len(planned.draft)
        if not n_drafted:
            return
        self.n_accepted += n_accepted
        planned.sequence.n_computed += n_accepted
        if n_accepted < n_drafted:
            self.cache.shorten(planned.sequence, n_drafted - n_accepted)

    def commit_aborted(self, batch: list[PlannedSlice], n_positions: Callable[[int], int]) -> None:
        """Record a batch that was ended early; ``n_positions`` maps a slot to its tokens, by the model's own count.

        Known tokens that were computed count. Draft tokens do not: there are no logits to accept them by.
        """
        for planned in batch:
            sequence, slot = planned.sequence, slot_of(planned.sequence)
            n_new = n_positions(slot) - sequence.n_computed
            self.pool.fill(slot, n_new)
            n_drafted = max(0, n_new - planned.n_tokens)
            if n_drafted:
                self.cache.shorten(sequence, n_drafted)
            sequence.n_computed += n_new - n_drafted

    def recover_room(self, batch: list[PlannedSlice]) -> None:
        """Make the next batch smaller, or free cells, after the model had no room although the pool counts enough.

        Raises ``AccountingError`` when a single sequence without a draft does not fit.
        """
        if any(planned.draft for planned in batch):
            self._decode.may_draft = False
            return
        if self.cache.idle.evict_oldest():
            return
        if len(self.sequences.running) < 2:
            raise AccountingError(f"the model has no room for a single sequence; {self.pool}")
        # llama.cpp never reuses a window cell that several sequences hold: this one comes back with cells of its own.
        self._admission.preempt().may_share = False

    def end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Remove a waiting or running sequence; ``keep``: its cells may serve the next turn."""
        if self.sequences.remove(sequence):
            self.cache.release(sequence, keep=keep)

    def close(self, timeout_secs: float) -> None:
        """Save the KV state of running sequences too, for the next process."""
        for sequence in list(self.sequences.running):
            self.end(sequence)
        self.cache.close(timeout_secs)

    def check(self) -> None:
        """Check cells and slots while nothing runs, against the model's own counts; raises ``AccountingError``."""
        self.pool.check()
        self.cache.idle.check()
        if self.pool.used:
            raise AccountingError(f"no sequence runs, but slots are in use; {self.pool}")
