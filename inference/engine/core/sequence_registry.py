"""Registry of a runner's sequences: waiting ones by rank, running ones by admission. Knows no cells and no batches."""

from bisect import insort

from inference.engine.sequences.sequence import Sequence, SequenceState


class SequenceRegistry:
    """Every sequence is in exactly one of the two lists from ``add`` to ``remove``."""

    def __init__(self) -> None:
        self.waiting: list[Sequence] = []  # by rank
        self.running: list[Sequence] = []  # by admission
        self._deferred: list[tuple[Sequence, str]] = []

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=lambda waiting: waiting.rank)

    def find(self, sequence_id: str) -> Sequence | None:
        return next((sequence for sequence in (*self.running, *self.waiting) if sequence.id == sequence_id), None)

    def overdue(self, now: float) -> list[Sequence]:
        """List sequences whose deadline has passed; ``now`` in seconds on the loop's clock."""
        sequences = (*self.running, *self.waiting)
        return [sequence for sequence in sequences if sequence.ends_at is not None and now >= sequence.ends_at]

    @property
    def decoding(self) -> list[Sequence]:
        """Running sequences that produce one token a step, by admission."""
        return [sequence for sequence in self.running if sequence.state is SequenceState.DECODE]

    @property
    def prefilling(self) -> list[Sequence]:
        """Running sequences with prompt tokens to compute, by rank."""
        prompts = (sequence for sequence in self.running if sequence.state is SequenceState.PREFILL)
        return sorted(prompts, key=lambda sequence: sequence.rank)

    def start(self, sequence: Sequence) -> None:
        """Move an admitted sequence to the running ones."""
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.move(SequenceState.PREFILL)
        sequence.is_deferred = False

    def requeue(self, sequence: Sequence) -> None:
        """Move a preempted sequence, which has lost its cells, back to the waiting ones."""
        self.running.remove(sequence)
        sequence.n_computed = 0
        sequence.move(SequenceState.WAITING)
        self.add(sequence)

    def remove(self, sequence: Sequence) -> bool:
        """Remove an ended sequence; returns whether it was running."""
        sequence.move(SequenceState.ENDED)
        was_running = sequence.slot is not None
        (self.running if was_running else self.waiting).remove(sequence)
        return was_running

    def defer(self, sequence: Sequence, reason: str) -> None:
        """Record that a sequence waits for room, once until it runs again; ``reason`` is shown to its user."""
        if not sequence.is_deferred:
            sequence.is_deferred = True
            self._deferred.append((sequence, reason))

    def take_deferred(self) -> list[tuple[Sequence, str]]:
        """Return the sequences deferred since the last call, with reasons."""
        deferred, self._deferred = self._deferred, []
        return deferred
