"""Admission of waiting sequences to slots, and preemption of running ones.

A sequence is admitted when all its known tokens fit beside the known tokens of the running ones. Room for answers is
not reserved: when it runs out, the running sequence of the lowest rank is preempted.
"""

from inference.engine.core.sequence_registry import SequenceRegistry
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.prefix_search import MIN_SAVED, NO_PREFIX, PrefixLookup
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.sequences.sequence import Sequence

# Reasons, shown to the waiting user.
NO_ROOM = "the model's memory is full; the answers before this one go first"
PREEMPTED = "the model's memory is full; this answer waits, and goes on when others have ended"
OUTRANKED = "work of higher priority goes first; this answer goes on when there is a place again"


class Admission:
    """``parallel`` is the most sequences that may run at once."""

    def __init__(self, registry: SequenceRegistry, pool: SlotPool, cache: PrefixCache, *, parallel: int) -> None:
        self._registry = registry
        self._pool = pool
        self._cache = cache
        self._parallel = parallel

    def admit_waiting(self) -> None:
        """Admit by rank until places or cells run out."""
        registry = self._registry
        n_following = 0  # sequences that wait for a running one to compute their common prefix
        for sequence in list(registry.waiting):
            if len(registry.running) + n_following >= self._parallel:
                if self._admit_by_preemption(sequence, OUTRANKED):
                    continue
                return
            lookup = self._look_up(sequence)
            if lookup.coming is not None:
                leader, n_common = lookup.coming
                leader.checkpoints.add(n_common)
                n_following += 1
            elif not (self._try_admit(sequence, lookup) or self._admit_by_preemption(sequence, PREEMPTED)):
                for waiting in registry.waiting[registry.waiting.index(sequence) :]:
                    registry.defer(waiting, NO_ROOM)
                return

    def preempt(self, reason: str = PREEMPTED) -> Sequence:
        """Take the cells of the running sequence of lowest rank; its state is saved if a tier has room for it."""
        victim = max(self._registry.running, key=lambda sequence: sequence.rank)
        self._cache.save(victim)
        self._cache.release(victim, keep=False)
        self._registry.requeue(victim)
        self._registry.defer(victim, reason)
        return victim

    def _look_up(self, sequence: Sequence) -> PrefixLookup:
        # A private state comes first: cells computed elsewhere may differ in the last bits for the same tokens.
        if not sequence.cache_prompt or sequence.swapped_state is not None:
            return NO_PREFIX
        return self._cache.find(sequence.tokens, sequence.priority, may_share=sequence.may_share, scope=sequence.scope)

    def _try_admit(self, sequence: Sequence, lookup: PrefixLookup) -> bool:
        running = self._registry.running
        n_reserved = sum(other.n_pending for other in running)
        n_room = self._pool.n_free + self._pool.n_cached - n_reserved
        if running and n_room < self._cache.n_new_cells(lookup.match, len(sequence.tokens)) + 1:
            return False
        if not self._cache.admit(sequence, lookup.match):
            return False
        self._registry.start(sequence)
        if sequence.admitted_at is None:
            sequence.n_cached = sequence.n_computed
        if lookup.n_known >= sequence.n_computed + MIN_SAVED:
            sequence.checkpoints.add(lookup.n_known)
        return True

    def _admit_by_preemption(self, sequence: Sequence, reason: str) -> bool:
        """Preempt sequences of lower priority until ``sequence`` fits; none if even all of them free too little."""
        running = self._registry.running
        lower = [other for other in running if other.priority > sequence.priority]
        n_room = self._pool.n_free + self._pool.n_cached + sum(other.n_computed for other in lower)
        n_reserved = sum(other.n_pending for other in running if other not in lower)
        if not lower or n_room < n_reserved + len(sequence.tokens) + 1:
            return False
        # One after the other: the first is often enough.
        for _ in lower:
            self.preempt(reason)
            if self._try_admit(sequence, self._look_up(sequence)):
                return True
        return False
