"""KV cache and logits of the fake model: the next token of the script has an overwhelming logit.

Its cells, slots and sliding window behave as llama.cpp's do, so that the same contract tests run over both.
"""

import os
import time
from collections.abc import Sequence
from itertools import count, islice

import msgspec
import numpy as np

from inference.engine.backends.backend import Logits, Slice
from inference.engine.backends.fake import FIRST_BYTE, N_TOKENS, START_OF_TURN, FakeVocabulary
from inference.engine.backends.fake_script import DAMAGED, Script, delay_ms, wants_abort, wants_hang, write_script
from inference.engine.backends.step_watch import CountedStepWatch, StepWatch
from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.errors import BackendError, StepAborted

CERTAIN, SECOND = 60.0, 30.0
# Text after the answer when its end is forbidden (``ignore_eos``).
FILLER = FIRST_BYTE + ord(" ")
NODE_SECS = 0.02  # a step shows progress, and can be ended, that often


class _Slot:
    """Cells of one sequence."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.cells: list[int] = []  # one per token; slots that share a prefix have the same cells in it
        self.first_position = 0
        self.is_damaged = False
        self.script: Script | None = None


class _State(msgspec.Struct, frozen=True, array_like=True):
    """A saved slot."""

    tokens: list[int]
    first_position: int
    is_damaged: bool


class FakeBackend:
    """``window`` > 0 forgets like a sliding-window layer: a slot trimmed back beyond it gives meaningless logits."""

    def __init__(
        self, *, n_cells: int, n_slots: int, batch_size: int, window: int = 0, max_outputs: int | None = None
    ) -> None:
        self.vocabulary: Vocabulary = FakeVocabulary()
        self._steps = CountedStepWatch()
        self.watch: StepWatch = self._steps
        self.n_cells = n_cells
        self.n_slots = n_slots
        self.batch_size = batch_size
        self.max_outputs = max_outputs or batch_size
        self.window = window
        self._slots = [_Slot() for _ in range(n_slots)]
        self._new_cells = count()

    @property
    def n_used_cells(self) -> int:
        """Cells that hold something, part counted once."""
        return len(set().union(*(slot.cells for slot in self._slots)))

    def decode(self, slices: Sequence[Slice]) -> list[Logits] | None:
        n_tokens = sum(len(part.tokens) for part in slices)
        if n_tokens > self.batch_size:
            raise BackendError(f"{n_tokens} tokens in a batch of {self.batch_size}")
        n_outputs = sum(part.n_outputs for part in slices)
        if n_outputs > self.max_outputs:
            raise BackendError(f"{n_outputs} rows of logits of a batch, {self.max_outputs} are reserved")
        if self.n_used_cells + n_tokens > self.n_cells:
            return None
        first_positions = [self._slots[part.slot].first_position for part in slices]
        secs = max(map(self._append, slices), default=0.0) / 1000
        if not self._compute(secs):
            for part, first_position in zip(slices, first_positions, strict=True):
                # A pass that was not finished displaces nothing that its first token needs.
                self._slots[part.slot].first_position = first_position
                self.trim(part.slot, part.start)
            raise StepAborted("the step was ended early")
        return [row for part in slices for row in self._rows(self._slots[part.slot], part.n_outputs)]

    def _compute(self, secs: float) -> bool:
        """Take that long, counted as the nodes of a graph are; False when the step is ended early."""
        ends_at = time.monotonic() + secs
        while not self._steps.is_aborted and (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(left, NODE_SECS))
            self._steps.n_done += 1
        return not self._steps.is_aborted

    def _append(self, part: Slice) -> float:
        """Put the tokens into their slot; returns the ms that its text demands of every step."""
        slot = self._slots[part.slot]
        if part.start != len(slot.tokens):
            raise BackendError(f"slot {part.slot} holds {len(slot.tokens)} tokens, the batch begins at {part.start}")
        slot.tokens.extend(part.tokens)
        slot.cells.extend(islice(self._new_cells, len(part.tokens)))
        # As in llama.cpp, cells outside the window are freed late, and then all at once.
        if self.window and len(slot.tokens) - slot.first_position > 2 * self.window:
            slot.first_position = len(slot.tokens) - self.window
        if len(part.tokens) > max(1, part.n_outputs) or START_OF_TURN in part.tokens:
            # A further prompt in the same slot: the script of the previous one does not apply any more.
            slot.script = None
        if slot.script is not None:
            return slot.script.delay_ms
        if wants_abort(slot.tokens):
            os.abort()
        while wants_hang(slot.tokens):
            time.sleep(1.0)
        return delay_ms(slot.tokens)

    def _rows(self, slot: _Slot, n_rows: int) -> list[Logits]:
        """Return the logits behind part of the last ``n_rows`` tokens."""
        if n_rows and slot.script is None:
            slot.script = write_script(slot.tokens[: len(slot.tokens) - n_rows + 1])
        return [self._logits(slot, len(slot.tokens) - n_behind) for n_behind in range(n_rows - 1, -1, -1)]

    def _logits(self, slot: _Slot, n_tokens: int) -> Logits:
        logits: Logits = np.zeros(N_TOKENS, dtype=np.float32)
        logits[FILLER] = SECOND
        script = DAMAGED if slot.is_damaged or slot.script is None else slot.script
        logits[script.token_after(n_tokens)] = CERTAIN
        return logits

    def remove(self, slot: int) -> None:
        self._slots[slot] = _Slot()

    def trim(self, slot: int, length: int) -> None:
        stored = self._slots[slot]
        stored.is_damaged |= self._has_lost(stored, length)
        del stored.tokens[length:], stored.cells[length:]
        stored.script = None

    def _has_lost(self, stored: _Slot, length: int) -> bool:
        """Return whether the window of position ``length`` is incomplete."""
        return bool(self.window) and stored.first_position > max(0, length - self.window + 1)

    def first_position(self, slot: int) -> int:
        return self._slots[slot].first_position

    def n_positions(self, slot: int) -> int:
        return len(self._slots[slot].tokens)

    def copy(self, source: int, target: int, length: int) -> None:
        stored, copied = self._slots[source], _Slot()
        copied.tokens, copied.cells = stored.tokens[:length], stored.cells[:length]
        copied.first_position = stored.first_position
        copied.is_damaged = stored.is_damaged or (length < len(stored.tokens) and self._has_lost(stored, length))
        self._slots[target] = copied

    def save(self, slot: int) -> bytes:
        stored = self._slots[slot]
        # Positions before the window are not part of a state, whether their cells were freed or not.
        first = max(stored.first_position, len(stored.tokens) - self.window) if self.window else 0
        return msgspec.msgpack.encode(_State(stored.tokens, first, stored.is_damaged))

    def load(self, slot: int, state: bytes) -> bool:
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.DecodeError, RecursionError):
            return False
        if self.n_used_cells + len(saved.tokens) > self.n_cells:
            return False
        loaded = self._slots[slot] = _Slot()
        loaded.tokens, loaded.first_position, loaded.is_damaged = saved.tokens, saved.first_position, saved.is_damaged
        loaded.cells = list(islice(self._new_cells, len(saved.tokens)))
        return True

    def close(self) -> None:
        self._slots.clear()
