"""Token budget of a prompt: the limits of its parts, and which part gives way first. All sizes are counted with the
model's own tokenizer. Knows no texts, no formats and no database.

    0                                                                     soft limit    hard limit  context size
    | system prompt | earlier turns          | turns, oldest first | sources, question |   answer   |
    |               | first message, summary |                     |                   |            |
    '------------- head: the same from turn to turn ---------------'                   '- max_tokens'

    1. sources    at most a quarter of the context; with the strategy ``error`` only the free rest
    2. turns      when prompt and answer have passed ``summary_trigger``, all but a tail of ``tail_limit`` is summarized
                  after the answer; beyond the soft limit the oldest are left out, which ``usage.history`` reports
    3. answer     old turns make room for it up to ANSWER_SHARE of the context; a longer one may be cut
    4. recalled   once turns are summarized or left out, ``recall_limit`` beside the newest question is kept free for
                  what it needs of them
    5. earlier    first message and summary are bounded, and left out only when the question would not fit otherwise
    never: the system prompt and the question (413, or read in parts when the request asks for it)
"""

from dataclasses import dataclass

from django.conf import settings

from chat.enums import Strategy
from chat.errors import ContextOverflow

# A text up to this length is counted to its end when it is refused.
EXACT_CHARS = 20_000
# When turns must be left out, more are left out than needed: otherwise each later turn would change the prefix again,
# and none of it could be reused.
KEEP_SHARE = 0.75
# The part of the context that is kept free for the answer by leaving out old turns.
ANSWER_SHARE = 0.25
# Of the context: limits of the first message word for word, and of a summary whatever the setting is.
FIRST_MESSAGE_SHARE = 1 / 16
SUMMARY_SHARE = 1 / 8
# Of the context: the messages that are recalled for one question, and their most tokens in a long context.
RECALL_SHARE, RECALL_TOKENS = 1 / 8, 1024
# Of the soft limit: the turns that stay word for word when older ones are summarized. With head and summary the prompt
# is then about half of the next trigger: summaries are rare, and the prefix stays the same between two of them.
TAIL_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """Limits in tokens of a prompt and its parts. ``recalls``: turns that do not fit are searched."""

    context_size: int
    max_tokens: int  # of the answer
    strategy: Strategy = Strategy.SUMMARIZE
    recalls: bool = False

    @property
    def hard_limit(self) -> int:
        """Leave one token for the answer."""
        return self.context_size - 1

    @property
    def soft_limit(self) -> int:
        """Leave room for the answer, at the cost of old turns if the strategy allows it."""
        if self.strategy is Strategy.ERROR:
            return self.hard_limit
        reserve = min(self.max_tokens, int(self.context_size * ANSWER_SHARE))
        return self.context_size - max(1, reserve)

    @property
    def recall_limit(self) -> int:
        if not self.recalls or self.strategy is not Strategy.SUMMARIZE:
            return 0
        return min(RECALL_TOKENS, int(self.context_size * RECALL_SHARE))

    def turns_limit(self, start: int) -> int:
        """Size of a prompt that begins with the turn ``start``: one without the first turns has room for recalls."""
        return self.soft_limit - (self.recall_limit if start else 0)

    @property
    def truncation_target(self) -> int:
        """Size that a prompt beyond its limit is truncated to."""
        return int((self.soft_limit - self.recall_limit) * KEEP_SHARE)

    @property
    def summary_trigger(self) -> int:
        """Size of prompt and answer beyond which the oldest turns are summarized."""
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

    def overflow(self, n_tokens: int, *, is_exact: bool = True) -> ContextOverflow:
        return ContextOverflow(prompt_tokens=n_tokens, context_size=self.context_size, is_exact=is_exact)
