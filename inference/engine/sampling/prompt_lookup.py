"""Draft tokens by prompt lookup: the tokens that followed an earlier occurrence of the last few (Saxena 2023).

Answers quote their prompt (passages, a text to shorten, names) and themselves. A draft costs rows in a batch and never
changes an answer: a draft token stays only if the sampler draws the same one. Knows tokens only.
"""

from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 4
# Acceptance rate by length of the repetition, before the text has shown its own. Measured (270M, chats, questions with
# passages, lists; greedy and at 0.7): 0.61 to 0.99 for at least 2 equal tokens, 0.74 to 0.98 for at least 3. The values
# for exactly 2 and for 4 are estimates.
PRIOR = {2: 0.5, 3: 0.75, 4: 0.85}
WEIGHT = 0.2  # of the newest observation
MAX_DRAFT = 31  # rows of one answer in a batch, beside its own


class PromptLookup:
    """Searchable tokens of one sequence, and the recent acceptance rate of drafts for it."""

    def __init__(self, ends: Container[int]) -> None:
        self._ends = ends
        self._tokens: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._n_tokens = 0
        self._odds = dict(PRIOR)
        self._length = LONGEST  # of the repetition behind the last draft
        self._last_draft: list[int] = []

    @property
    def odds(self) -> float:
        """Probability that a token of the last draft is accepted, given that those before it were."""
        return self._odds[self._length]

    def draft(self, tokens: Sequence[int], at_most: int) -> list[int]:
        """Return up to ``at_most`` draft tokens; ``tokens`` is the whole sequence, longer than at the last call."""
        # The rate of the last draft, decoded or not, is updated up to its first wrong token.
        for drafted, token in zip(self._last_draft, tokens[self._n_tokens :], strict=False):
            self._odds[self._length] += WEIGHT * ((drafted == token) - self._odds[self._length])
            if drafted != token:
                break
        n_tokens = len(tokens)
        if n_tokens > len(self._tokens):
            grown = np.empty(n_tokens + max(256, n_tokens // 2), dtype=np.int32)
            grown[: self._n_tokens] = self._tokens[: self._n_tokens]
            self._tokens = grown
        self._tokens[self._n_tokens : n_tokens] = tokens[self._n_tokens :]
        self._n_tokens = n_tokens
        self._last_draft = self._find_repetition()
        return self._last_draft[: max(0, at_most)]

    def _find_repetition(self) -> list[int]:
        """Return the tokens behind the longest, latest repetition of the last tokens, up to an end of generation."""
        tokens = self._tokens[: self._n_tokens]
        start: int | None = None
        # Ends of repetitions of the last ``length`` tokens; a longer repetition is one of the shorter ones.
        ends = np.flatnonzero(tokens[:-1] == tokens[-1]) + 1 if len(tokens) > 1 else np.empty(0, dtype=np.intp)
        for length in range(2, min(LONGEST, len(tokens) - 1) + 1):
            ends = ends[ends >= length]
            ends = ends[tokens[ends - length] == tokens[-length]]
            if not len(ends):
                break
            start, self._length = int(ends[-1]), length
        draft: list[int] = []
        for token in tokens[start : start + MAX_DRAFT].tolist() if start is not None else ():
            if token in self._ends:
                break
            draft.append(token)
        return draft
