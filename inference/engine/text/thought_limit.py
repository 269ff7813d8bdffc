"""The end of a thought that has reached its limit: the tokens that close it come in place of drawn ones.

A pure function of the tokens, so that a replay in another runner continues in the middle of the closing tokens.
"""

from collections import deque

from inference.engine.params import ThoughtMarks


class ThoughtLimit:
    """Counts the tokens of thoughts; without marks or a limit nothing is forced."""

    def __init__(self, marks: ThoughtMarks | None) -> None:
        self._limit = marks.limit if marks else None
        self._closing = tuple(marks.limit_ids) if marks else ()
        self._n_tokens = 0
        self._forced: deque[int] = deque()
        if marks and marks.is_open and self._limit == 0:
            self._forced.extend(self._closing)

    @property
    def forced_token(self) -> int | None:
        """The next token where none is to be drawn."""
        return self._forced[0] if self._forced else None

    def note(self, *, is_thinking: bool) -> None:
        """Note one more token of the sequence, after which the text is or is not within a thought."""
        if self._forced:
            self._forced.popleft()
        elif is_thinking and self._limit is not None:
            self._n_tokens += 1
            if self._n_tokens >= self._limit:
                self._forced.extend(self._closing)
