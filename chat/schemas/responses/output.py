"""The output of a response by its items: thoughts and the message, in the order in which they began.

A pure function of the pieces of thought and text, which come with a stream's lines or from the row.
"""

from dataclasses import dataclass, field

from chat.schemas.openai.chat_answers import TokenLogprob


@dataclass
class ThoughtOutput:
    """A thought: the index of its item, and its pieces."""

    index: int
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass
class OutputSoFar:
    """``logprobs`` are those of the message; of a token without text they belong to the next one with text."""

    thoughts: list[ThoughtOutput] = field(default_factory=list)
    message_index: int | None = None
    n_items: int = 0
    is_thinking: bool = False
    logprobs: list[TokenLogprob] = field(default_factory=list)
    _waiting: list[TokenLogprob] = field(default_factory=list)

    def push(self, thought: str, text: str, logprob: TokenLogprob | None = None) -> None:
        """Add the pieces of one token."""
        self.wait(logprob)
        if thought:
            if not self.is_thinking:
                self.begin_thought()
            self.think(thought)
        if text:
            self.is_thinking = False
            if self.message_index is None:
                self.begin_message()
            self.take_logprobs()

    def wait(self, logprob: TokenLogprob | None) -> None:
        if logprob is not None:
            self._waiting.append(logprob)

    def begin_thought(self) -> ThoughtOutput:
        self.thoughts.append(ThoughtOutput(self._next_index()))
        self.is_thinking = True
        return self.thoughts[-1]

    def think(self, piece: str) -> None:
        self.thoughts[-1].pieces.append(piece)
        self._waiting.clear()

    def begin_message(self) -> int:
        self.message_index = self._next_index()
        return self.message_index

    def take_logprobs(self) -> list[TokenLogprob]:
        """Move what waits to the message; returns it."""
        taken, self._waiting = self._waiting, []
        self.logprobs += taken
        return taken

    def _next_index(self) -> int:
        self.n_items += 1
        return self.n_items - 1
