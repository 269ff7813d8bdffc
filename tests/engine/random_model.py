"""A model with random logits, the same for the same tokens, which prefers to come to an end: for tests of grammars."""

import numpy as np

from inference.engine.backends.backend import Logits
from inference.engine.backends.fake import END_OF_TURN, EOS, FIRST_BYTE, N_TOKENS
from inference.engine.backends.fake_backend import FakeBackend, _Slot

# Text that repeats itself, so that prompt lookup finds drafts.
FAVOURITES = b'"}],:01ae {['


class RandomBackend(FakeBackend):
    """``seed`` chooses the model. Logits depend on the last tokens, so that a continued answer goes on the same way."""

    def __init__(self, *, seed: int, n_cells: int, n_slots: int, batch_size: int, max_outputs: int) -> None:
        super().__init__(n_cells=n_cells, n_slots=n_slots, batch_size=batch_size, max_outputs=max_outputs)
        self._seed = seed

    def _logits(self, slot: _Slot, n_tokens: int) -> Logits:
        recent = slot.tokens[max(0, n_tokens - 3) : n_tokens]
        random = np.random.default_rng([self._seed, n_tokens // 16, *recent])
        logits = random.normal(0.0, 2.0, N_TOKENS).astype(np.float32)
        logits[[FIRST_BYTE + byte for byte in FAVOURITES]] += 3.0
        # A text of some length is closed rather than continued.
        logits[[FIRST_BYTE + ord(mark) for mark in '"}]']] += n_tokens / 60
        logits[[EOS, END_OF_TURN]] += 6.0
        return logits
