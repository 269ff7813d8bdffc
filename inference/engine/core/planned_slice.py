"""The part of a sequence in the next batch."""

from dataclasses import dataclass, field

from inference.engine.backends.backend import Slice
from inference.engine.kv_cache.prefix_cache import slot_of
from inference.engine.sequences.sequence import Sequence


@dataclass(frozen=True, slots=True)
class PlannedSlice:
    """The next ``n_tokens`` known tokens of a sequence, and draft tokens behind them."""

    sequence: Sequence
    n_tokens: int
    draft: list[int] = field(default_factory=list)

    @property
    def completes(self) -> bool:
        """True when the last known token is included, so that its logits give a new one."""
        return self.n_tokens == self.sequence.n_pending

    @property
    def n_rows(self) -> int:
        return self.n_tokens + len(self.draft)

    def as_slice(self) -> Slice:
        sequence = self.sequence
        start = sequence.n_computed
        tokens = sequence.tokens[start : start + self.n_tokens]
        n_outputs = 1 + len(self.draft) if self.completes else 0
        return Slice(slot_of(sequence), start, tokens + self.draft, n_outputs)
