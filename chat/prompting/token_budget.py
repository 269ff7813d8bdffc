"""What goes into a prompt and who gives way: the one place that decides it. Sizes are tokens of the model's own
tokenizer, counted, never estimated. Knows no texts, no formats and no database.

    0                                                                   wanted limit    hard limit  context size
    | system text | what was said earlier | turns, oldest first | memories, question |   answer   |
    |             | first message, summary|                     |                    |            |
    '------------ head: the same from turn to turn -------------'                     '- max_tokens'

    1. memories   never more than a quarter of the context; with the strategy ``error`` only what is left over
    2. turns      when prompt and answer have passed ``summary_due_at``, all but a tail of ``tail_limit`` is folded into
                  the summary, after the answer; beyond the wanted limit the oldest are left out, and that is said
    3. answer     old turns make room for it up to ANSWER_SHARE of the context; what it asks beyond that may be cut
    4. earlier    first message and summary are bounded, and go only when the question would not fit otherwise
    never: the system text and the question (413, or read in parts when the client asked for it)
"""

from dataclasses import dataclass

from django.conf import settings

from chat.enums import Strategy
from chat.errors import ContextOverflow

# When turns must be left out, more go than must: otherwise every later turn would move the beginning again,
# and nothing computed before could be used again.
KEEP_SHARE = 0.75
# The part of the context that an answer may ask to be kept free by leaving out old turns.
ANSWER_SHARE = 0.25
# Of the context: the first message word for word, and the most a summary may have whatever the setting says.
FIRST_MESSAGE_SHARE = 1 / 16
SUMMARY_SHARE = 1 / 8
# Of the wanted limit: what stays word for word when older turns are folded. With the head and the summary that is
# about half of what sets off the next fold, so that folds are rare and the prompt's beginning stays the same between.
TAIL_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """How many tokens a prompt and its parts may have."""

    context_size: int
    max_tokens: int  # of the answer
    strategy: Strategy = Strategy.SUMMARIZE

    @property
    def hard_limit(self) -> int:
        """One token of answer must fit."""
        return self.context_size - 1

    @property
    def soft_limit(self) -> int:
        """Leaves room for the answer, at the cost of old turns if the strategy allows it."""
        if self.strategy is Strategy.ERROR:
            return self.hard_limit
        reserve = min(self.max_tokens, int(self.context_size * ANSWER_SHARE))
        return self.context_size - max(1, reserve)

    @property
    def truncation_target(self) -> int:
        """What a prompt is shortened to when it must be."""
        return int(self.soft_limit * KEEP_SHARE)

    @property
    def summary_trigger(self) -> int:
        """A prompt with its answer beyond this has its oldest turns folded."""
        return int(self.soft_limit * settings.HISTORY_SUMMARY_AT)

    @property
    def tail_limit(self) -> int:
        return int(self.soft_limit * TAIL_SHARE)

    @property
    def first_message_limit(self) -> int:
        return int(self.context_size * FIRST_MESSAGE_SHARE)

    @property
    def summary_limit(self) -> int:
        return max(1, min(settings.HISTORY_SUMMARY_TOKENS, int(self.context_size * SUMMARY_SHARE)))

    def overflow(self, n_tokens: int) -> ContextOverflow:
        return ContextOverflow(prompt_tokens=n_tokens, context_size=self.context_size)
