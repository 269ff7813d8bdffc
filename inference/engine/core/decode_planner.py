"""Decode steps: the next token of every answer, with draft tokens or in turns where that gives more tokens per ms.

Reads the registry and makes room in the cache; changes no sequence.
"""

from inference.engine.core.batch_cost import BatchCost
from inference.engine.core.planned_slice import PlannedSlice
from inference.engine.core.sequence_registry import SequenceRegistry
from inference.engine.core.step_cost import StepCost
from inference.engine.kv_cache.idle_slots import IdleSlots
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.sequences.sequence import Sequence


class DecodePlanner:
    """``may_draft`` is False for the one batch after the model had no cells for drafts.

    ``mixes``: prompts may be in the same batch.
    """

    def __init__(
        self,
        registry: SequenceRegistry,
        pool: SlotPool,
        idle: IdleSlots,
        cost: StepCost,
        batch_cost: BatchCost,
        *,
        draft_max: int,
        mixes: bool,
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._idle = idle
        self._cost = cost
        self._batch_cost = batch_cost
        self._draft_max = draft_max
        self._mixes = mixes
        self.may_draft = True

    def plan(self) -> list[PlannedSlice]:
        answers = self._registry.decoding
        if not answers or not self._batch_cost.ms:
            return [PlannedSlice(answer, 1) for answer in answers]
        longest_waiting = sorted(answers, key=lambda answer: answer.last_step)
        draft_max = self._draft_max if self.may_draft else 0
        drafts = [answer.draft(draft_max, self._pool.n_cells) for answer in longest_waiting]
        odds = [
            [answer.draft_odds ** (n + 1) for n in range(len(draft))]
            for answer, draft in zip(longest_waiting, drafts, strict=True)
        ]
        prompts = self._registry.prefilling
        shares = self._batch_cost.best_batch(
            odds,
            spare_ms=self._cost.spare_ms([prompt.n_pending for prompt in prompts]),
            n_reserved=len(prompts) if self._mixes else 0,  # a prompt that ends in this batch needs a row of logits
        )
        self._idle.make_room(sum(1 + (share or 0) for share in shares))
        n_free = self._pool.n_free - len(answers)
        planned: dict[Sequence, PlannedSlice] = {}
        for answer, draft, share in zip(longest_waiting, drafts, shares, strict=True):
            if share is not None:
                planned[answer] = PlannedSlice(answer, 1, draft[: min(share, n_free)])
                n_free -= len(planned[answer].draft)
        return [planned[answer] for answer in answers if answer in planned]

    def finishes_first(self, answers: list[Sequence]) -> bool:
        """Return whether all answers can end without delaying any prompt's first token.

        They would decode between its slices anyway; and alone, a prompt is computed in larger slices, which cost less
        per token.
        """
        prompts = self._registry.prefilling
        if not prompts:
            return False
        n_tokens = min(prompt.n_pending for prompt in prompts)
        n_steps = max(answer.max_tokens - answer.n_generated for answer in answers)
        ends_ms = n_steps * self._cost.decode_ms(len(answers))
        return ends_ms + self._cost.prefill_ms(n_tokens, 0) < self._cost.prefill_ms(n_tokens, len(answers))
