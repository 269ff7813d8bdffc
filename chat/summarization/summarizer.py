"""The summariser's prompts: what it is asked about one piece of a conversation, as tokens that fit the context.

Knows formats and budgets, no rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chat.models import Role
from chat.prompting.chat_templates import ChatFormat
from chat.prompting.history_notes import PLAIN_SUMMARIZER_SYSTEM, SUMMARIZER_SYSTEM, as_transcript, summarizer_message
from chat.prompting.source_block import FENCE, quoted
from chat.prompting.text_splitter import beginning, pieces
from chat.prompting.token_budget import TokenBudget
from chat.schemas.requests import RunOptions

# Of the context: a piece beyond this is read in several steps even where it would fit into one. When a summary is due
# a quarter is free; a question that fits into it beside the conversation is computed without pushing anybody out.
PIECE_SHARE = 0.125
MIN_PIECE_TOKENS = 32
# A word has a little more than one token; the bound itself is max_tokens.
WORDS_PER_TOKEN = 0.6


@dataclass(frozen=True)
class Summarizer:
    """Asks for minutes of at most ``budget.summary_limit`` tokens."""

    format: ChatFormat
    budget: TokenBudget

    @property
    def options(self) -> RunOptions:
        """Close to the likeliest words, but not so close that a small model repeats itself for ever."""
        stop = (f"\n{FENCE}",)
        return RunOptions(max_tokens=self.budget.summary_limit, temperature=0.2, repeat_penalty=1.1, stop=stop)

    def pieces(self, said: Sequence[tuple[Role, str]]) -> list[str]:
        """What was said, in parts that can be read one at a time beside the minutes of those before."""
        return pieces(as_transcript(said), self._piece_limit(), self._count_quoted)

    def parts(self, text: str) -> list[str]:
        """One text in parts, as large as can be read at once."""
        free = self.budget.context_size - self.budget.summary_limit - len(self._prompt("", "")) - 1
        return pieces(text, max(MIN_PIECE_TOKENS, free), self._count_quoted)

    def prompt(self, piece: str, so_far: str = "") -> list[int]:
        """The tokens of one question; minutes that came out too long to stand beside the piece are shortened."""
        limit = self.budget.context_size - self.budget.summary_limit
        ids = self._prompt(piece, so_far)
        while len(ids) > limit and so_far:
            so_far = beginning(so_far, self.count(so_far) // 2, self.count)
            ids = self._prompt(piece, so_far)
        return ids

    def count(self, text: str) -> int:
        return len(self.format.tokenizer.encode(text))

    def _piece_limit(self) -> int:
        empty = len(self._prompt("", "x"))
        # Quoted minutes have a mark on each line: twice their bound is more than they can have.
        free = self.budget.context_size - 3 * self.budget.summary_limit - empty
        return max(MIN_PIECE_TOKENS, min(free, int(self.budget.context_size * PIECE_SHARE)))

    def _prompt(self, piece: str, so_far: str) -> list[int]:
        system = PLAIN_SUMMARIZER_SYSTEM if self.format.plain_model else SUMMARIZER_SYSTEM
        n_words = max(10, int(self.budget.summary_limit * WORDS_PER_TOKEN))
        return self.format.opening(system, summarizer_message(piece, so_far, n_words=n_words))

    def _count_quoted(self, text: str) -> int:
        return self.count(quoted(text))
