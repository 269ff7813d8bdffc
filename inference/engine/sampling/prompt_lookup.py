"""Guesses at an answer's next tokens: what followed the last time the same few tokens stood in it or in its prompt.

Answers quote their prompt (memories, a text to shorten, names) and themselves. A guess costs nothing but rows in a
batch, and changes no answer: a guessed token stays only if the sampler draws the very same one (prompt lookup
decoding, Saxena 2023). Knows tokens only.
"""

from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST = 4
# By how many tokens are the same, how often a guess counts as right before anything is known of the text. Measured
# (270M, chats, questions to memories, lists; greedy and at 0.7): after at least 2 the same the next token was right in
# 0.61 to 0.99, after at least 3 in 0.74 to 0.98. The rest, after just 2, is an estimate.
PRIOR = {2: 0.5, 3: 0.75, 4: 0.85}
WEIGHT = 0.2  # of the newest observation
MOST = 31  # rows that a batch may have for one answer, beside its own


class PromptLookup:
    """One sequence's tokens, searchable, and how often guesses at it would have been right of late."""

    def __init__(self, ends: Container[int]) -> None:
        self._ends = ends
        self._tokens: NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self._n_tokens = 0
        self._odds = dict(PRIOR)
        self._length = LONGEST  # of the repetition that the last guess followed
        self._guess: list[int] = []

    @property
    def odds(self) -> float:
        """The probability that a token of the last guess is right, if those before it were."""
        return self._odds[self._length]

    def draft(self, tokens: Sequence[int], at_most: int) -> list[int]:
        """Up to ``at_most`` tokens that may follow; ``tokens`` is the whole sequence, longer than at the last call."""
        self._learn(tokens[self._n_tokens :])
        self._follow(tokens)
        self._guess = self._repeated()
        return self._guess[: max(0, at_most)]

    def _learn(self, came: Sequence[int]) -> None:
        """Compare with the last guess, tried or not; what stands behind its first wrong token says nothing."""
        for guessed, token in zip(self._guess, came, strict=False):
            self._odds[self._length] += WEIGHT * ((guessed == token) - self._odds[self._length])
            if guessed != token:
                break

    def _follow(self, tokens: Sequence[int]) -> None:
        n_tokens = len(tokens)
        if n_tokens > len(self._tokens):
            grown = np.empty(n_tokens + max(256, n_tokens // 2), dtype=np.int32)
            grown[: self._n_tokens] = self._tokens[: self._n_tokens]
            self._tokens = grown
        self._tokens[self._n_tokens : n_tokens] = tokens[self._n_tokens :]
        self._n_tokens = n_tokens

    def _repeated(self) -> list[int]:
        """What stands behind the longest repetition of the last tokens, of equals the latest; no end of an answer."""
        known = self._tokens[: self._n_tokens]
        start: int | None = None
        # Where repetitions of the last ``length`` tokens end; the longer ones are among the shorter ones.
        ends = np.flatnonzero(known[:-1] == known[-1]) + 1 if len(known) > 1 else np.empty(0, dtype=np.intp)
        for length in range(2, min(LONGEST, len(known) - 1) + 1):
            ends = ends[ends >= length]
            ends = ends[known[ends - length] == known[-length]]
            if not len(ends):
                break
            start, self._length = int(ends[-1]), length
        guessed: list[int] = []
        for token in known[start : start + MOST].tolist() if start is not None else ():
            if token in self._ends:
                break
            guessed.append(token)
        return guessed
