"""A record of the chunks computed into each slot, and a reference that computes the same chunks without any reuse.

Comparison, bit for bit: every row of logits that the engine got has a history, the tokens of its slot
in the chunks in which they were decoded, and the places where the state was saved and loaded. The reference decodes
that history into an empty slot of a context of its own. It shares nothing, knows no cache, and goes back over no
token but within the last chunk (a prefix that ended in the middle of a chunk was computed with that whole chunk).
"""

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from inference.engine.backends.backend import Backend, Logits, Slice
from tests.engine.harness import RecordingBackend


@dataclass(frozen=True, order=True)
class Chunk:
    """Tokens that were decoded together; of the last one of a history maybe only the first ``n_kept`` are left."""

    tokens: tuple[int, ...]
    n_kept: int
    n_outputs: int = 0  # the last tokens whose logits were requested
    reloaded: bool = False  # saved and loaded behind it


History = tuple[Chunk, ...]
Found = tuple[History, list[Logits]]  # the rows behind the last tokens of the last chunk


def length_of(history: History) -> int:
    return sum(chunk.n_kept for chunk in history)


def tokens_of(history: History) -> list[int]:
    return [token for chunk in history for token in chunk.tokens[: chunk.n_kept]]


def cut(history: History, length: int) -> History:
    """The first ``length`` tokens, as if nothing had ever been behind the chunk in which they end."""
    kept: list[Chunk] = []
    for chunk in history:
        n_kept = min(chunk.n_kept, length - length_of(tuple(kept)))
        if n_kept <= 0:
            break
        kept.append(chunk if n_kept == chunk.n_kept else replace(chunk, n_kept=n_kept, reloaded=False))
    return tuple(kept)


class TracedBackend(RecordingBackend):
    """Passes everything on, and knows the history of every slot, every saved state and every row of logits."""

    def __init__(self, inner: Backend, beside: "TracedBackend | None" = None) -> None:
        """States of the one ``beside`` may come here, and its rows are ours."""
        super().__init__(inner)
        self.histories: dict[int, History] = dict.fromkeys(range(inner.n_slots), ())
        self.found: list[Found] = beside.found if beside else []
        self._saved: dict[bytes, History] = beside._saved if beside else {}

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        for each in slices:
            assert each.start == length_of(self.histories[each.slot]), f"slot {each.slot} is elsewhere"
        logits = self.inner.decode(slices)
        if logits is None:
            return None
        for each in slices:
            self.histories[each.slot] += (Chunk(tuple(each.tokens), len(each.tokens), each.n_outputs),)
        rows = iter(logits)
        for each in slices:
            if each.n_outputs:
                wanted = [next(rows).copy() for _ in range(each.n_outputs)]
                self.found.append((self.histories[each.slot], wanted))
        assert next(rows, None) is None
        return logits

    def remove(self, slot: int) -> None:
        super().remove(slot)
        self.histories[slot] = ()

    def trim(self, slot: int, length: int) -> None:
        super().trim(slot, length)
        self.histories[slot] = cut(self.histories[slot], length)

    def copy(self, source: int, target: int, length: int) -> None:
        super().copy(source, target, length)
        self.histories[target] = cut(self.histories[source], length)

    def save(self, slot: int) -> bytes:
        state = super().save(slot)
        *before, last = self.histories[slot]
        self._saved[digest(state)] = (*before, replace(last, reloaded=True))
        return state

    def load(self, slot: int, state: bytes) -> bool:
        assert digest(state) in self._saved, "a state came back that was never saved"
        if not super().load(slot, state):
            return False
        self.histories[slot] = self._saved[digest(state)]
        return True


def digest(state: bytes) -> bytes:
    return blake2b(state, digest_size=16).digest()


class Reference:
    """``backend`` has two slots, and no other user."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._slot = 0
        self._held: History = ()
        for slot in (0, 1):
            backend.remove(slot)

    def differences(self, found: Many[Found]) -> Iterator[tuple[History, float]]:
        """Every history whose logits are not the reference's to the last bit, with the largest difference."""
        # In this order a history follows the one that it begins with, and is gone on to from there.
        for history, rows in sorted(found, key=lambda each: each[0]):
            expected = self._rows(history)
            assert len(expected) == len(rows)
            if not np.array_equal(expected, rows):
                yield history, float(np.abs(np.subtract(expected, rows)).max())

    def _rows(self, history: History) -> list[Logits]:
        n_held = len(self._held)
        if n_held >= len(history) or history[:n_held] != self._held:
            self._backend.remove(self._slot)
            self._held = ()
        rows: list[Logits] = []
        for chunk in history[len(self._held) :]:
            rows = self._decode(chunk)
        return rows

    def _decode(self, chunk: Chunk) -> list[Logits]:
        start = length_of(self._held)
        found = self._backend.decode([Slice(self._slot, start, chunk.tokens, chunk.n_outputs)])
        assert found is not None, "the reference has no cells left"
        rows = [row.copy() for row in found]
        if chunk.n_kept < len(chunk.tokens):
            self._backend.trim(self._slot, start + chunk.n_kept)
        if chunk.reloaded:
            state, other = self._backend.save(self._slot), 1 - self._slot
            assert self._backend.load(other, state)
            self._backend.remove(self._slot)
            self._slot = other
        self._held = (*self._held, chunk)
        return rows
