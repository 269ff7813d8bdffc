"""Which tokens are computed next: admission, order, room. Bookkeeping only; what is in which cells is the cache's.

A step holds the next token of every running answer, or as much of the waiting prompts as the cost model allows, in
turn; or both at once where that is cheaper.
"""

from bisect import insort
from dataclasses import dataclass, field

from inference.engine.backends.backend import Slice
from inference.engine.core.batch_cost import BatchCost
from inference.engine.core.step_cost import FIXED_SLICE, StepCost
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.prefix_cache import MIN_SAVED, NOTHING, PrefixCache, PrefixLookup
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.sequences.sequence import Sequence, SequenceState

# For the user who waits.
NO_ROOM = "the model's memory is full; the answers before this one go first"
GAVE_WAY = "the model's memory is full; this answer waits, and goes on when others have ended"
GAVE_PLACE = "work of higher priority goes first; this answer goes on when there is a place again"
# A prompt that needs more steps than this lets short ones pass.
LONG_PROMPT_STEPS = 4


@dataclass(frozen=True, slots=True)
class PlannedSlice:
    """The next ``n_tokens`` of a sequence are in the coming batch, and a guess at those that follow."""

    sequence: Sequence
    n_tokens: int
    draft: list[int] = field(default_factory=list)

    @property
    def completes(self) -> bool:
        """Whether the last known token is among them, so that a new one follows from its logits."""
        return self.n_tokens == self.sequence.n_pending

    @property
    def n_rows(self) -> int:
        return self.n_tokens + len(self.draft)

    def as_slice(self) -> Slice:
        sequence = self.sequence
        if sequence.slot is None:
            raise AccountingError(f"sequence {sequence.id} is planned without a slot")
        start = sequence.n_computed
        tokens = sequence.tokens[start : start + self.n_tokens]
        return Slice(sequence.slot, start, tokens + self.draft, 1 + len(self.draft) if self.completes else 0)


class Scheduler:
    """Owns the waiting and the running sequences of one runner."""

    def __init__(
        self,
        pool: SlotPool,
        cache: PrefixCache,
        cost: StepCost,
        shapes: BatchCost,
        *,
        parallel: int,
        batch_size: int,
        draft_max: int = 0,
        mixes: bool = False,
    ) -> None:
        self.pool = pool
        self.cache = cache
        self.waiting: list[Sequence] = []  # by rank
        self.running: list[Sequence] = []  # by admission
        self._held: list[tuple[Sequence, str]] = []  # that began to wait, and nobody was told so yet
        self._cost = cost
        self._shapes = shapes
        self._draft_max = draft_max
        self._n_steps = 0
        self._may_guess = True  # in the coming batch
        self.n_accepted = 0  # guessed tokens of the last batch that were
        self._parallel = parallel
        self._batch_size = batch_size
        self._mixes = mixes
        self._has_just_read = False  # the last batch held prompts

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=lambda waiting: waiting.rank)

    def find(self, sequence_id: str) -> Sequence | None:
        return next((each for each in (*self.running, *self.waiting) if each.id == sequence_id), None)

    def overdue(self, now: float) -> list[Sequence]:
        """Those whose deadline has passed, wherever they are."""
        everyone = (*self.running, *self.waiting)
        return [each for each in everyone if each.ends_at is not None and now >= each.ends_at]

    def take_deferred(self) -> list[tuple[Sequence, str]]:
        """Who began to wait for room since the last call, and why."""
        held, self._held = self._held, []
        return held

    def plan(self) -> list[PlannedSlice]:
        """The next batch; empty when there is nothing to do."""
        for each in self.running:
            if each.n_computed in each.checkpoints:
                self.cache.take_checkpoint(each)
        self._admit()
        while not self.cache.make_room(len(self._answers())):
            self._preempt()
        if self._mixes:
            going_on = self._plan_answers()
            return going_on + self._plan_prefill(sum(each.n_rows for each in going_on))
        answers = self._answers()
        waits = bool(answers) and (self._has_just_read or self._end_first(answers))
        prompts = [] if waits else self._plan_prefill(len(answers))
        self._has_just_read = bool(prompts)
        return prompts or self._plan_answers()

    def _answers(self) -> list[Sequence]:
        return [each for each in self.running if each.state is SequenceState.DECODE]

    def done(self, planned: list[PlannedSlice]) -> None:
        """The batch was decoded: its tokens are in their cells."""
        self._n_steps += 1
        self.n_accepted = 0
        self._may_guess = True
        for each in planned:
            sequence = each.sequence
            if sequence.slot is None:
                raise AccountingError(f"sequence {sequence.id} was decoded without a slot")
            self.pool.fill(sequence.slot, each.n_rows)
            sequence.n_computed += each.n_tokens
            sequence.last_step = self._n_steps

    def settle(self, planned: PlannedSlice, n_accepted: int) -> None:
        """The first ``n_right`` tokens of a guess have become the sequence's own; the cells of the others go back."""
        n_drafted = len(planned.draft)
        if not n_drafted:
            return
        self.n_accepted += n_accepted
        planned.sequence.n_computed += n_accepted
        if n_accepted < n_drafted:
            self.cache.shorten(planned.sequence, n_drafted - n_accepted)

    def end(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Take a sequence out, waiting or running; its cells stay for the next turn if they may."""
        sequence.move(SequenceState.ENDED)
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        self.cache.leave(sequence, keep=keep)

    def close(self, timeout_secs: float) -> None:
        """Keep what is computed, of running sequences too, for the process that comes after this one."""
        for sequence in list(self.running):
            self.end(sequence)
        self.cache.close(timeout_secs)

    def relieve(self, planned: list[PlannedSlice]) -> None:
        """The model had no cells for a batch that fits by the books: ask for less, or give it some room."""
        if any(each.draft for each in planned):
            self._may_guess = False
            return
        if self.cache.evict_oldest():
            return
        if len(self.running) < 2:
            raise AccountingError(f"the model has no room for a single sequence; {self.pool}")
        # llama.cpp takes no cell of a window back that several sequences hold: this one comes back with its own.
        self._preempt().may_share = False

    def check(self) -> None:
        """With nothing running, the books balance and agree with the model's own counts."""
        self.pool.check()
        self.cache.check()
        if self.pool.used:
            raise AccountingError(f"nothing runs, but slots are in use; {self.pool}")

    # ---- admission ----

    def _admit(self) -> None:
        n_coming = 0
        for sequence in list(self.waiting):
            if len(self.running) + n_coming >= self._parallel:
                if self._admit_before_others(sequence, GAVE_PLACE):
                    continue
                return
            found = self._look_up(sequence)
            if found.coming is not None:
                # Its beginning is being computed by another: that one stops there, and this one goes on from it.
                leader, n_common = found.coming
                leader.checkpoints.add(n_common)
                n_coming += 1
            elif not (self._try_admit(sequence, found) or self._admit_before_others(sequence, GAVE_WAY)):
                for held in self.waiting[self.waiting.index(sequence) :]:
                    self._hold(held, NO_ROOM)
                return

    def _look_up(self, sequence: Sequence) -> PrefixLookup:
        # One with a state of its own goes on from that: elsewhere the same tokens may have other numbers.
        if not sequence.cache_prompt or sequence.swapped_state is not None:
            return NOTHING
        return self.cache.find(sequence.tokens, sequence.priority, may_share=sequence.may_share)

    def _try_admit(self, sequence: Sequence, found: PrefixLookup) -> bool:
        """Give it a slot if all its known tokens, and one more, will find cells beside the others' known tokens."""
        n_promised = sum(each.n_pending for each in self.running)
        n_room = self.pool.n_free + self.pool.n_cached - n_promised
        if self.running and n_room < self.cache.n_new_cells(found.match, len(sequence.tokens)) + 1:
            return False
        if not self.cache.admit(sequence, found.match):
            return False
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.move(SequenceState.PREFILL)
        sequence.is_deferred = False
        if sequence.admitted_at is None:
            sequence.n_cached = sequence.n_computed
        if found.n_known >= sequence.n_computed + MIN_SAVED:
            sequence.checkpoints.add(found.n_known)
        return True

    def _admit_before_others(self, sequence: Sequence, reason: str) -> bool:
        """Work of lower priority gives place and cells to a prompt that would have to wait for its end otherwise."""
        lower = [each for each in self.running if each.priority > sequence.priority]
        n_room = self.pool.n_free + self.pool.n_cached + sum(each.n_computed for each in lower)
        n_promised = sum(each.n_pending for each in self.running if each not in lower)
        if not lower or n_room < n_promised + len(sequence.tokens) + 1:
            return False
        # One after the other: often the first is enough.
        for _ in lower:
            self._preempt(reason)
            if self._try_admit(sequence, self._look_up(sequence)):
                return True
        return False

    # ---- room ----

    def _preempt(self, reason: str = GAVE_WAY) -> Sequence:
        """Take the cells of the lowest in rank; it waits until its turn comes, in a snapshot if there is a place."""
        victim = max(self.running, key=lambda each: each.rank)
        self.cache.save(victim)
        self.cache.leave(victim, keep=False)
        self.running.remove(victim)
        victim.n_computed = 0
        victim.move(SequenceState.WAITING)
        self.add(victim)
        self._hold(victim, reason)
        return victim

    def _hold(self, sequence: Sequence, reason: str) -> None:
        if not sequence.is_deferred:
            sequence.is_deferred = True
            self._held.append((sequence, reason))

    # ---- answers ----

    def _plan_answers(self) -> list[PlannedSlice]:
        """The next token of every answer, with guesses or in turns where that gives more tokens for the time."""
        answers = self._answers()
        if not answers or not self._shapes.ms:
            return [PlannedSlice(each, 1) for each in answers]
        longest_waiting = sorted(answers, key=lambda each: each.last_step)
        guesses = [each.lookup.draft(each.tokens, self._most_guessed(each)) for each in longest_waiting]
        odds = [
            [each.lookup.odds ** (n + 1) for n in range(len(draft))]
            for each, draft in zip(longest_waiting, guesses, strict=True)
        ]
        prompts = self._prompts()
        shares = self._shapes.best_batch(
            odds,
            spare_ms=self._spare_ms(prompts),
            n_reserved=len(prompts) if self._mixes else 0,  # each may end in this batch, and then has a row of logits
        )
        self.cache.make_room(sum(1 + (share or 0) for share in shares))
        n_free = self.pool.n_free - len(answers)
        planned: dict[Sequence, PlannedSlice] = {}
        for each, draft, share in zip(longest_waiting, guesses, shares, strict=True):
            if share is not None:
                planned[each] = PlannedSlice(each, 1, draft[: min(share, n_free)])
                n_free -= len(planned[each].draft)
        return [planned[each] for each in answers if each in planned]

    def _spare_ms(self, prompts: list[Sequence]) -> float | None:
        """What guesses may cost beyond one token for each answer; ``None``: as much as they are worth.

        Nothing where a first token is one slice away. 16 short prompts at once (270M, 2 cores, four rounds in turn):
        median first token 3,124 ms with guesses between the slices, 2,893 with none at all.
        """
        if not prompts:
            return None
        return 0.0 if any(each.n_pending <= FIXED_SLICE for each in prompts) else self._cost.spare_ms

    def _end_first(self, answers: list[Sequence]) -> bool:
        """Whether the answers can be brought to their ends without a later first token for any prompt.

        They would go on between its slices anyway; and alone it is read in larger ones, which cost less by the token.
        """
        prompts = self._prompts()
        if not prompts:
            return False
        n_tokens = min(each.n_pending for each in prompts)
        n_steps = max(each.max_tokens - each.n_generated for each in answers)
        ends_ms = n_steps * self._cost.decode_ms(len(answers))
        return ends_ms + self._cost.reading_ms(n_tokens, 0) < self._cost.reading_ms(n_tokens, len(answers))

    def _most_guessed(self, answer: Sequence) -> int:
        """The token after the guess has to be wanted too, and to have a place."""
        if not self._may_guess:
            return 0
        n_wanted = answer.max_tokens - answer.n_generated - 1
        return max(0, min(self._draft_max, n_wanted, self.pool.n_cells - len(answer.tokens) - 1))

    # ---- prompts ----

    def _prompts(self) -> list[Sequence]:
        return sorted(
            (each for each in self.running if each.state is SequenceState.PREFILL), key=lambda each: each.rank
        )

    def _plan_prefill(self, n_decode: int) -> list[PlannedSlice]:
        """Slices of prompts within the step's budget, see ``_shares``."""
        prompts = self._prompts()
        if not prompts:
            return []
        budget = max(self._cost.n_prefill_tokens(n_decode), _n_short(prompts))
        budget = min(budget, self._batch_size - n_decode)
        n_wanted = n_decode + min(budget, sum(each.n_to_checkpoint for each in prompts))
        self.cache.make_room(n_wanted)
        budget = min(budget, self.pool.n_free - n_decode)
        shares = _shares(prompts, budget)
        return [PlannedSlice(each, n_tokens) for each, n_tokens in zip(prompts, shares, strict=True) if n_tokens > 0]


def _n_short(prompts: list[Sequence]) -> int:
    """Tokens of the prompts at the head of the line that are short and can be done at once.

    Half a short prompt helps nobody: its own first token comes no sooner, and those behind it wait longer, since a
    slice of 128 tokens is dearer by the token than one of 256, and each is followed by a step of the answers. 16
    questions at once (270M, 2 cores): the last first token after 5.9 s in slices of the budget, 4.6 s whole.
    """
    n_tokens = 0
    for each in prompts:
        if each.n_prefill > FIXED_SLICE or n_tokens + each.n_to_checkpoint > FIXED_SLICE:
            break
        n_tokens += each.n_to_checkpoint
    return n_tokens


def _shares(prompts: list[Sequence], budget: int) -> list[int]:
    """How many tokens of the budget each prompt gets; ``prompts`` are in rank order.

    First come first served, so that the first of many does not wait for the last. But a short question does not wait
    for a long one to be read: one that takes many steps yet leaves half of each to those, and goes on all the time.
    """
    is_long = [each.n_pending > LONG_PROMPT_STEPS * budget for each in prompts]
    short = [index for index in range(len(prompts)) if not is_long[index]]
    shares = [0] * len(prompts)
    if is_long[0] and short:
        shares[0] = min(prompts[0].n_to_checkpoint, (budget + 1) // 2)
    left = budget - shares[0]
    for index in [*(short if is_long[0] else ()), *range(len(prompts))]:
        extra = min(prompts[index].n_to_checkpoint - shares[index], left)
        shares[index] += extra
        left -= extra
    return shares
