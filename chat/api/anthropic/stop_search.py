"""The stop sequence that ended an answer. The text of an answer ends before it, so it is read from the tokens."""

from collections import deque
from collections.abc import Sequence

from chat.streaming.events import TOKEN_ID, WireLine
from inference.engine.backends.vocabulary import Vocabulary


class StopSearch:
    """Keeps the last tokens of an answer, as many as its longest stop sequence may have."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        n_bytes = max((len(stop.encode()) for stop in self._stops), default=0)
        # Each token has a byte at least, but for control tokens, which end an answer.
        self._tokens: deque[int] = deque(maxlen=n_bytes + 1)

    def push(self, line: WireLine) -> None:
        if TOKEN_ID in line:
            self._tokens.append(line[TOKEN_ID])

    def find(self, vocabulary: Vocabulary) -> str | None:
        """Return the stop sequence that the last token completes: of several the first, of those the longest.

        None, too, for an answer whose token log has expired: its row does not have the tokens of a stop sequence.
        """
        pieces = [vocabulary.piece(token) for token in self._tokens]
        if not pieces or not pieces[-1]:
            return None
        text = b"".join(pieces).decode("utf-8", "ignore")
        n_before = len(b"".join(pieces[:-1]).decode("utf-8", "ignore"))
        ends = []
        for stop in self._stops:
            start = text.find(stop, max(0, n_before - len(stop) + 1))
            if start >= 0:
                ends.append((start + len(stop), start, stop))
        return min(ends)[2] if ends else None
