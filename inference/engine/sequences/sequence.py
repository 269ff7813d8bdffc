"""A generation inside the engine: tokens, the number of them computed, and state. Knows no batches."""

from dataclasses import dataclass, field
from enum import StrEnum

from inference.engine.grammar.matcher import GrammarMatcher
from inference.engine.sampling.prompt_lookup import PromptLookup
from inference.engine.sampling.sampler import Sampler
from inference.engine.sequences.cache_scope import NO_SCOPE, CacheScope
from inference.engine.text.detokenizer import Detokenizer

# Acceptance rate of tokens that a grammar leaves no other text for: the same text may be drawn in other tokens.
FORCED_ODDS = 0.95


class SequenceState(StrEnum):
    """Legal transitions are in ``ALLOWED``."""

    WAITING = "waiting"  # arrived or preempted; has no slot
    PREFILL = "prefill"  # admitted: has a slot, known tokens are being computed
    DECODE = "decode"  # first token drawn: every token but the last is computed, each step adds one
    ENDED = "ended"  # finished, cancelled, overdue or exported; its slot is taken back


ALLOWED = {
    SequenceState.WAITING: (SequenceState.PREFILL, SequenceState.ENDED),
    SequenceState.PREFILL: (SequenceState.DECODE, SequenceState.WAITING, SequenceState.ENDED),
    SequenceState.DECODE: (SequenceState.WAITING, SequenceState.ENDED),
    SequenceState.ENDED: (),
}


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt, replayed and generated tokens in one list.

    tokens:  [0 ... n_prompt) prompt, [n_prompt ... len) emitted, by this runner or an earlier one
    cells:   [0 ... n_computed) of them are in the KV cache
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
    arrived_at: float  # monotonic seconds, as every ``_at`` below
    matcher: GrammarMatcher | None = None  # behind the emitted tokens
    draft_odds: float = 0.0  # probability that a token of the last draft is accepted, given that those before it were
    n_logprobs: int = 0
    ends_at: float | None = None  # deadline, monotonic seconds
    ephemeral: bool = False  # nothing of it may reach a disk
    tags: frozenset[str] = frozenset()  # owners of its KV states
    scope: CacheScope = NO_SCOPE  # KV states that it may reuse
    admitted_at: float | None = None
    first_token_at: float | None = None
    prefilled_at: float | None = None
    state: SequenceState = SequenceState.WAITING
    slot: int | None = None
    n_computed: int = 0
    last_step: int = 0  # number of its last batch
    n_cached: int = 0
    swapped_state: bytes | None = None  # private KV state while it holds no slot, or from another runner
    n_swapped: int = 0  # tokens in it
    is_deferred: bool = False  # waits for room, and Deferred was sent
    may_share: bool = True  # cells with other sequences
    checkpoint_folder: str = ""  # for states of its prompt in progress, see ``prefill_checkpoints``
    max_checkpoint_bytes: int = 0  # for those of all sequences together
    checkpoint_bytes: int = 0  # of the last of them
    checkpoint_secs: float = 0.0  # that it took
    unsaved_secs: float = 0.0  # of prefill since then
    # Ends of prefixes shared with other sequences: a slice ends there, so that the state can be copied or saved.
    checkpoints: set[int] = field(default_factory=set)

    def move(self, state: SequenceState) -> None:
        if state not in ALLOWED[self.state]:
            allowed = ", ".join(ALLOWED[self.state]) or "nothing"
            raise RuntimeError(f"sequence {self.id} is {self.state}: expected a move to {allowed}, got {state}")
        self.state = state

    @property
    def binding_matcher(self) -> GrammarMatcher | None:
        """The matcher that the next token has to satisfy; none within a thought."""
        return None if self.text.is_within_thought else self.matcher

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_pending(self) -> int:
        return len(self.tokens) - self.n_computed

    @property
    def n_prefill(self) -> int:
        """Known tokens that were not reused from the cache."""
        return len(self.tokens) - self.n_cached

    @property
    def n_to_checkpoint(self) -> int:
        """Pending tokens up to the next checkpoint."""
        ahead = (checkpoint for checkpoint in self.checkpoints if checkpoint > self.n_computed)
        return min(ahead, default=len(self.tokens)) - self.n_computed

    def draft(self, at_most: int, n_cells: int) -> list[int]:
        """Return up to ``at_most`` draft tokens that the grammar permits, for a model with ``n_cells``."""
        # One less: the token after the draft needs a place.
        n_left = min(self.max_tokens - self.n_generated, n_cells - len(self.tokens)) - 1
        n_drafts = max(0, min(at_most, n_left))
        draft = self.lookup.draft(self.tokens, n_drafts)
        self.draft_odds = self.lookup.odds
        if not n_drafts or not (matcher := self.binding_matcher):
            return draft
        draft, forced = matcher.permitted(draft), matcher.forced()[:n_drafts]
        if draft[: len(forced)] == forced:
            return draft
        self.draft_odds = FORCED_ODDS
        return forced

    def is_computing(self, n_tokens: int, priority: int) -> bool:
        """Return whether its first ``n_tokens`` are still being computed, at ``priority`` or above it."""
        return self.state is SequenceState.PREFILL and self.priority <= priority and self.n_computed < n_tokens

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key of admission; lower goes first."""
        return (self.priority, self.arrival)
