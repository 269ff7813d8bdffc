"""Search for stop sequences in a growing text. Knows no tokens and no state of the text beside them."""

from collections.abc import Callable, Iterable


class StopSequences:
    """Stop sequences of one answer; false when there are none."""

    def __init__(self, sequences: Iterable[str]) -> None:
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._longest = max(map(len, self._sequences), default=0)

    def __bool__(self) -> bool:
        return bool(self._sequences)

    def first_in(self, text: str, n_searched: int, is_hidden: Callable[[int, int], bool]) -> int | None:
        """Return the start of the stop sequence that is complete first (of those, the longest); None without one.

        No sequence is complete within the first ``n_searched`` characters. A match for whose start and length
        ``is_hidden`` returns true does not count. The result does not depend on how the text was divided into pieces.
        """
        first: tuple[int, int] | None = None  # (end, start)
        for sequence in self._sequences:
            length = len(sequence)
            start = text.find(sequence, max(0, n_searched - length + 1))
            while start >= 0 and is_hidden(start, length):
                start = text.find(sequence, start + 1)
            if start >= 0 and (first is None or (start + length, start) < first):
                first = (start + length, start)
        return None if first is None else first[1]

    def n_unfinished(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that begins a stop sequence."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(sequence.startswith(text[-length:]) for sequence in self._sequences):
                return length
        return 0
