"""Decide which exchanges a rolling summary takes in, and when.

| covered by the summary | summarized now | tail, kept word for word | a question without an answer |
0                    n_covered           end
"""

from collections.abc import Sequence

from chat.prompting.context_window import ContextWindow, Exchange, exchange_size

# Of the soft limit: a last exchange up to this size stays even where it is larger than the tail may be.
LAST_EXCHANGE_SHARE = 0.5


def end_of_summarized(window: ContextWindow, exchanges: Sequence[Exchange]) -> int | None:
    """Return the index of the first exchange of the tail; None if no summary is due.

    ``exchanges`` are rendered as follow-ups; only the last of them may lack an answer, and is never summarized.
    """
    budget = window.budget
    n_covered = window.n_covered(exchanges)
    if window.n_tokens_from(exchanges, n_covered) <= budget.summary_trigger:
        return None
    answered = len(exchanges) if exchanges and exchanges[-1].answer else len(exchanges) - 1
    end, size = answered, 0
    while end > n_covered:
        next_size = exchange_size(exchanges[end - 1])
        fits = size + next_size <= budget.tail_limit
        is_small_last = end == answered and next_size <= budget.soft_limit * LAST_EXCHANGE_SHARE
        if not (fits or is_small_last):
            break
        end, size = end - 1, size + next_size
    return end if end > n_covered else None
