"""Prompts of the summarizer: one piece of a conversation each, as tokens that fit the context window.

Knows formats and token budgets, no rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from django.conf import settings

from chat.enums import Effort
from chat.models import Role
from chat.prompting.chat_format import ChatFormat
from chat.prompting.chat_templates import get_format
from chat.prompting.history_notes import (
    PLAIN_SUMMARIZER_SYSTEM,
    SUMMARIZER_SYSTEM,
    as_transcript,
    summarizer_message,
)
from chat.prompting.source_block import FENCE, quoted
from chat.prompting.text_splitter import beginning, pieces, spans
from chat.prompting.token_budget import TokenBudget
from chat.schemas.requests import RunOptions

# Of the context window. When a summary is due a quarter is free: a piece of an eighth with its summary is computed
# there without evicting a conversation.
PIECE_SHARE = 0.125
MIN_PIECE_TOKENS = 32
# Of the context window, which is also what the KV cache holds: one part of a long message with prompt and notes, the
# text of a part at least, and all parts that are computed at once. Other questions find the rest free.
PART_SHARE = 0.25
PART_TEXT_SHARE = 0.125
ALL_PARTS_SHARE = 0.5
# A word has a little more than one token; the bound itself is max_tokens.
WORDS_PER_TOKEN = 0.6


@dataclass(frozen=True)
class Summarizer:
    """Builds prompts for summaries of at most ``budget.summary_limit`` tokens."""

    format: ChatFormat
    budget: TokenBudget

    @classmethod
    def of(cls, budget: TokenBudget) -> Self:
        """Return a summarizer that does not think: its few tokens are for the summary."""
        return cls(get_format(Effort.NONE).for_request(), budget)

    @property
    def options(self) -> RunOptions:
        """Sampling near the likeliest tokens, yet not so near that a small model repeats itself without end."""
        stop = (f"\n{FENCE}",)
        return RunOptions(
            max_tokens=self.budget.summary_limit,
            temperature=0.2,
            repeat_penalty=1.1,
            stop=stop,
            reasoning_effort=Effort.NONE,
        )

    @property
    def other_options(self) -> RunOptions:
        """Sampling for the second attempt: shorter, with a larger penalty for what is there already."""
        return replace(
            self.options,
            max_tokens=max(1, self.budget.summary_limit * 2 // 3),
            temperature=0.5,
            repeat_penalty=1.2,
            frequency_penalty=0.3,
        )

    def pieces(self, messages: Sequence[tuple[Role, str]]) -> list[str]:
        """Split messages into pieces that fit beside the summary of the pieces before."""
        return pieces(as_transcript(messages), self._piece_limit, self._count_quoted)

    def n_in_pieces(self, groups: Sequence[Sequence[tuple[Role, str]]], n_pieces: int) -> int:
        """Count the leading groups of messages that ``n_pieces`` hold, at least one."""
        left = n_pieces * self._piece_limit
        for index, messages in enumerate(groups):
            left -= self._count_quoted(as_transcript(messages))
            if left < 0:
                return max(1, index)
        return len(groups)

    @property
    def _piece_limit(self) -> int:
        n_empty = len(self._prompt("", "x"))
        # Each line of a quoted summary has a mark: twice its limit is more than it can take.
        free = self.budget.context_size - 3 * self.budget.summary_limit - n_empty
        return max(MIN_PIECE_TOKENS, min(free, int(self.budget.context_size * PIECE_SHARE)))

    def parts(self, text: str) -> list[tuple[int, int]]:
        """Return start and end of the parts of one text."""
        return list(spans(text, self._part_limit, self._count_quoted))

    def has_more_parts(self, text: str, n_parts: int) -> bool:
        """Return whether the text is longer than ``n_parts`` full parts, without splitting it."""
        limit = n_parts * self._part_limit
        return len(self.format.tokenizer.encode(quoted(text), limit=limit)) > limit

    @property
    def parts_at_once(self) -> int:
        """Return how many parts may be queued or computed: half of the places, and half of the KV cache."""
        n_tokens = self._part_limit + self._part_overhead
        n_fitting = int(self.budget.context_size * ALL_PARTS_SHARE) // n_tokens
        return max(1, min(settings.GEMMA_PARALLEL // 2, n_fitting))

    @property
    def _part_limit(self) -> int:
        size, overhead = self.budget.context_size, self._part_overhead
        limit = max(int(size * PART_SHARE) - overhead, int(size * PART_TEXT_SHARE))
        return max(MIN_PIECE_TOKENS, min(limit, size - overhead))

    @property
    def _part_overhead(self) -> int:
        return self.budget.summary_limit + len(self._prompt("", "")) + 1

    def prompt(self, piece: str, so_far: str = "", *, is_list: bool = False) -> list[int]:
        """Return the prompt of one piece; a summary so far that is too long to stand beside it is shortened."""
        limit = self.budget.context_size - self.budget.summary_limit
        ids = self._prompt(piece, so_far, is_list=is_list)
        while len(ids) > limit and so_far:
            so_far = beginning(so_far, self.count(so_far) // 2, self.count)
            ids = self._prompt(piece, so_far, is_list=is_list)
        return ids

    def n_shared(self, prompt_ids: Sequence[int]) -> int:
        """Count the leading tokens of a prompt that are the installation's own text."""
        return self.format.n_shared(prompt_ids, self._system)

    def count(self, text: str) -> int:
        return len(self.format.tokenizer.encode(text))

    @property
    def _system(self) -> str:
        return PLAIN_SUMMARIZER_SYSTEM if self.format.plain_model else SUMMARIZER_SYSTEM

    def _prompt(self, piece: str, so_far: str, *, is_list: bool = False) -> list[int]:
        n_words = max(10, int(self.budget.summary_limit * WORDS_PER_TOKEN))
        return self.format.opening(self._system, summarizer_message(piece, so_far, n_words=n_words, is_list=is_list))

    def _count_quoted(self, text: str) -> int:
        return self.count(quoted(text))
