"""Incremental detokenization: whole characters, thoughts apart, stop sequences across token borders, a trimmed start,
citation labels.

A pure function of the pieces: pushing the same pieces again restores exactly the text that is held back.
"""

import codecs
from collections.abc import Sequence
from typing import Protocol, Self

from inference.engine.params import SequenceParams, ThoughtMarks
from inference.engine.text.citation_filter import CitationFilter
from inference.engine.text.stop_sequences import StopSequences
from inference.engine.text.thought_limit import ThoughtLimit
from inference.engine.text.thought_splitter import AnswerPart, AnswerSegment, ThoughtSplitter


class TokenSpelling(Protocol):
    """The part of a vocabulary that is read here."""

    def piece(self, token: int) -> bytes: ...
    def token_text(self, token: int) -> str: ...


class Detokenizer:
    """Takes the bytes of one token after the other and releases text that can no longer change.

    Stop sequences are searched in the raw text; citation labels above ``highest_label`` are removed behind that. With
    ``trim_start`` leading white space is not part of the answer: its blanks match no stop sequence, its line breaks
    only one that goes on with visible text, as the next speaker's name. With ``thought`` the text of a thought comes
    apart from the answer's, and neither stop sequences nor labels are searched in it.
    """

    def __init__(
        self,
        stop: Sequence[str] = (),
        *,
        trim_start: bool = False,
        highest_label: int | None = None,
        thought: ThoughtMarks | None = None,
    ) -> None:
        self._stop = StopSequences(stop)
        self._labels = None if highest_label is None else CitationFilter(highest_label)
        self._splitter = None if thought is None else ThoughtSplitter(thought)
        self._limit = ThoughtLimit(thought)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""  # decoded, but it may begin a stop sequence
        self._trimming = trim_start
        self._lead = _LeadingSpace(is_open=trim_start)
        self._ends: list[int] = []  # characters begun after each piece
        self._n_decoded = 0
        self._n_released = 0  # characters, before trimming and labels
        self._n_hidden = 0  # characters of thoughts and of marks around them
        self._thoughts: list[str] = []
        self.stopped = False

    @classmethod
    def of(cls, params: SequenceParams) -> Self:
        # The removal of a label would break the form of a structured answer.
        highest_label = None if params.grammar else params.highest_label
        return cls(params.stop, trim_start=params.trim_start, highest_label=highest_label, thought=params.thought)

    def push_token(self, token: int, spelling: TokenSpelling) -> str:
        """Push a token's bytes as ``push`` does; a control token may be a mark of a thought."""
        piece = spelling.piece(token)
        is_mark = self._splitter is not None and not piece
        return self.push(piece, control_name=spelling.token_text(token) if is_mark else "")

    def push(self, piece: bytes, *, control_name: str = "") -> str:
        """Return the answer's text released by one more token; sets ``stopped`` when a stop sequence is complete."""
        characters = self._decoder.decode(piece)
        if self._splitter and control_name:
            characters += self._splitter.spelled(control_name)
        self._n_decoded += len(characters)
        is_within_character = bool(self._decoder.getstate()[0])
        self._ends.append(self._n_decoded + is_within_character)
        if self.stopped:
            return ""
        if self._splitter is None:
            return self._answer(characters)
        text = "".join([self._segment(segment) for segment in self._splitter.push(characters)])
        self._limit.note(is_thinking=self._splitter.is_thinking)
        return text

    @property
    def forced_token(self) -> int | None:
        """The token that has to come next, since a thought has reached its limit."""
        return self._limit.forced_token

    @property
    def is_within_thought(self) -> bool:
        """Return whether the next token belongs to a thought or to its end."""
        return self._splitter is not None and (self._splitter.is_thinking or self.forced_token is not None)

    def take_thought(self) -> str:
        """Return the text of the thought that was released since the last call."""
        released, self._thoughts = "".join(self._thoughts), []
        return released

    def flush(self) -> str:
        """Return the text held back until the answer ends; an incomplete last character is left out."""
        if self.stopped:
            return ""
        segments = self._splitter.flush() if self._splitter else ()
        text = "".join([self._segment(segment) for segment in segments])
        pending, self._pending = self._pending, ""
        return text + self._release(pending) + self._flush_labels()

    @property
    def n_kept(self) -> int:
        """Number of pieces that lie wholly within the text, valid after the end.

        A piece that a stop sequence cuts, or that holds bytes of an incomplete last character, is not counted. Pieces
        without bytes at the end of the text are.
        """
        n_characters = self._n_hidden + self._n_released if self.stopped else self._n_decoded
        return sum(end <= n_characters for end in self._ends)

    def _segment(self, segment: AnswerSegment) -> str:
        if self.stopped:
            return ""
        if segment.part is AnswerPart.ANSWER:
            self._n_hidden += segment.n_raw - len(segment.text)
            return self._answer(segment.text)
        self._n_hidden += segment.n_raw
        self._thoughts.append(segment.text)
        return ""

    def _answer(self, characters: str) -> str:
        self._lead.extend(characters)
        if not self._stop:
            return self._release(characters)
        text = self._pending + characters
        cut = self._stop.first_in(
            text, len(self._pending), lambda start, length: self._lead.hides(self._n_released + start, length)
        )
        if cut is not None:
            self.stopped = True
            self._pending = ""
            return self._release(text[:cut]) + self._flush_labels()
        n_decided = len(text) - self._stop.n_unfinished(text)
        self._pending = text[n_decided:]
        return self._release(text[:n_decided])

    def _release(self, text: str) -> str:
        self._n_released += len(text)
        if self._trimming:
            text = text.lstrip()
            self._trimming = not text
        return text if self._labels is None else self._labels.push(text)

    def _flush_labels(self) -> str:
        return "" if self._labels is None else self._labels.flush()


class _LeadingSpace:
    """Extent of the white space before an answer, in characters of the raw text."""

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._n_blanks = 0  # before the first line break
        self._n_characters = 0

    def extend(self, characters: str) -> None:
        if not self._is_open:
            return
        visible = characters.lstrip()
        space = characters[: len(characters) - len(visible)]
        if self._n_blanks == self._n_characters:
            self._n_blanks += len(space) - len(space.lstrip(" "))
        self._n_characters += len(space)
        self._is_open = not visible

    def hides(self, start: int, length: int) -> bool:
        """Return whether a match begins in the blanks or lies wholly within the white space."""
        return start < self._n_blanks or start + length <= self._n_characters
