"""Which turns of a conversation are folded into its summary, and when. Pure bookkeeping over exchanges.

| covered by the summary | folded now | tail, stays word for word | a question without an answer |
0                    n_covered      end
"""

from collections.abc import Sequence

from chat.prompting.context_window import ContextWindow, Exchange, exchange_size
from chat.prompting.token_budget import TokenBudget

# Of the wanted limit: a last exchange up to this size stays even where it is more than the tail may be.
LAST_EXCHANGE_SHARE = 0.5


def end_of_summarized(history: ContextWindow, exchanges: Sequence[Exchange]) -> int | None:
    """The first exchange of the tail, if those between ``n_covered`` and it are to be folded now.

    ``exchanges`` are rendered as follow-ups; only the last of them may be without an answer, and is never folded.
    """
    budget: TokenBudget = history.budget
    n_covered = history.n_covered(exchanges)
    if history.n_tokens_from(exchanges, n_covered) <= budget.summary_trigger:
        return None
    answered = len(exchanges) if exchanges and exchanges[-1].answer else len(exchanges) - 1
    end, size = answered, 0
    while end > n_covered:
        next_size = exchange_size(exchanges[end - 1])
        fits = size + next_size <= budget.tail_limit
        is_last_and_small = end == answered and next_size <= budget.soft_limit * LAST_EXCHANGE_SHARE
        if not (fits or is_last_and_small):
            break
        end, size = end - 1, size + next_size
    return end if end > n_covered else None
