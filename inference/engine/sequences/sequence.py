"""One generation inside the engine: its tokens, how far they are computed, and its state.

Knows no cells but their count, and nothing of batches.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from inference.engine.sampling.prompt_lookup import PromptLookup
from inference.engine.sampling.sampler import Sampler
from inference.engine.text.detokenizer import Detokenizer


class SequenceState(StrEnum):
    """Where a sequence is; ``ALLOWED`` has the moves."""

    WAITING = "waiting"  # arrived, or gave its cells to one of higher priority; holds no slot
    PREFILL = "prefill"  # has a slot; known tokens are being computed
    DECODE = "decode"  # every token but the last is computed; each step adds one
    ENDED = "ended"  # said its last; whoever had it takes its slot back


ALLOWED = {
    SequenceState.WAITING: (SequenceState.PREFILL, SequenceState.ENDED),
    SequenceState.PREFILL: (SequenceState.DECODE, SequenceState.WAITING, SequenceState.ENDED),
    SequenceState.DECODE: (SequenceState.WAITING, SequenceState.ENDED),
    SequenceState.ENDED: (),
}


@dataclass(slots=True, eq=False)
class Sequence:
    """``tokens`` are prompt, replayed and generated tokens in one list.

    tokens:  [0 ... n_prompt) prompt, [n_prompt ... len) given out, by this runner or a former one
    cells:   [0 ... n_computed) of them are in the model's memory
    """

    id: str
    tokens: list[int]
    n_prompt: int
    priority: int
    arrival: int
    max_tokens: int
    cache_prompt: bool
    sampler: Sampler
    text: Detokenizer
    lookup: PromptLookup
    arrived_at: float  # seconds on the loop's clock, as every ``_at`` below
    n_logprobs: int = 0
    ends_at: float | None = None  # seconds on the same clock: its deadline
    ephemeral: bool = False  # its tokens and states stay in memory
    tags: frozenset[str] = frozenset()  # owners of its states
    admitted_at: float | None = None
    first_token_at: float | None = None
    prefilled_at: float | None = None
    state: SequenceState = SequenceState.WAITING
    slot: int | None = None
    n_computed: int = 0
    last_step: int = 0  # the number of the last batch it was in
    n_cached: int = 0
    swapped_state: bytes | None = None  # private KV state while it holds no slot, or from another runner
    n_swapped: int = 0  # tokens in it
    is_deferred: bool = False  # waits for room, and its user was told
    may_share: bool = True  # cells with other sequences
    # Ends of beginnings that others share: a slice ends there, so that the state can be copied or saved.
    checkpoints: set[int] = field(default_factory=set)

    def move(self, state: SequenceState) -> None:
        if state not in ALLOWED[self.state]:
            raise RuntimeError(f"sequence {self.id} cannot go from {self.state} to {state}")
        self.state = state

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_pending(self) -> int:
        return len(self.tokens) - self.n_computed

    @property
    def n_prefill(self) -> int:
        """Known tokens that were not found computed."""
        return len(self.tokens) - self.n_cached

    @property
    def n_to_checkpoint(self) -> int:
        """Pending tokens up to the next mark."""
        return (
            min((mark for mark in self.checkpoints if mark > self.n_computed), default=len(self.tokens))
            - self.n_computed
        )

    @property
    def rank(self) -> tuple[int, int]:
        """Lower goes first."""
        return (self.priority, self.arrival)
