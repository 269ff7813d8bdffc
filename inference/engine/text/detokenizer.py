"""The text of an answer while it grows: whole characters, stop strings across token borders, a trimmed start, labels.

A pure function of the pieces: the same pieces pushed again restore exactly what was held back.
"""

import codecs
from collections.abc import Sequence
from typing import Self

from inference.engine.params import SequenceParams
from inference.engine.text.citation_filter import CitationFilter


class Detokenizer:
    """Takes the bytes of one token after the other and releases what can no longer change.

    Stop strings are looked for in what the model said; labels above ``highest_label`` go after that.
    """

    def __init__(self, stop: Sequence[str] = (), *, trim_start: bool = False, highest_label: int | None = None) -> None:
        self._stop = tuple(stop)
        self._labels = None if highest_label is None else CitationFilter(highest_label)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # decoded, but it may begin a stop string
        self._trimming = trim_start
        self._ends: list[int] = []  # characters begun after each piece
        self._n_decoded = 0
        self._n_released = 0  # characters, before trimming and labels
        self.stopped = False

    @classmethod
    def of(cls, params: SequenceParams) -> Self:
        return cls(params.stop, trim_start=params.trim_start, highest_label=params.highest_label)

    def push(self, piece: bytes) -> str:
        """Text released by one more token; may be empty. Sets ``stopped`` when a stop string is complete."""
        characters = self._decoder.decode(piece)
        self._n_decoded += len(characters)
        is_within_character = bool(self._decoder.getstate()[0])
        self._ends.append(self._n_decoded + is_within_character)
        return "" if self.stopped else self._take(characters)

    def flush(self) -> str:
        """What was held back, when the answer ends here; a character cut in half becomes U+FFFD."""
        if self.stopped:
            return ""
        rest = self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return rest + self._release(held) + self._last_of_labels()

    @property
    def n_kept(self) -> int:
        """How many pieces lie wholly within the text; a piece that a stop string cuts is not among them.

        Meaningful after the end. Pieces with no bytes at the end of the text are kept.
        """
        if not self.stopped:
            return len(self._ends)
        return sum(end <= self._n_released for end in self._ends)

    def _take(self, characters: str) -> str:
        """Release what cannot belong to a stop string.

        Character by character where it matters: of two stop strings the one that is complete first ends the text,
        however the characters are spread over tokens.
        """
        if not self._stop:
            return self._release(characters)
        text = self._held + characters
        cut = self._first_stop(text, len(self._held))
        if cut is not None:
            self.stopped = True
            self._held = ""
            return self._release(text[:cut]) + self._last_of_labels()
        n_held = self._n_may_begin_stop(text)
        self._held = text[len(text) - n_held :]
        return self._release(text[: len(text) - n_held])

    def _first_stop(self, text: str, n_known: int) -> int | None:
        """Where the stop string begins that is complete first (of those, the longest); ``n_known`` were looked at."""
        found: tuple[int, int] | None = None
        for stop in self._stop:
            start = text.find(stop, max(0, n_known - len(stop) + 1))
            if stop and start >= 0 and (found is None or (start + len(stop), start) < found):
                found = (start + len(stop), start)
        return None if found is None else found[1]

    def _n_may_begin_stop(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = max(map(len, self._stop)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0

    def _release(self, text: str) -> str:
        self._n_released += len(text)
        if self._trimming:
            text = text.lstrip()
            self._trimming = not text
        return text if self._labels is None else self._labels.push(text)

    def _last_of_labels(self) -> str:
        return "" if self._labels is None else self._labels.flush()
