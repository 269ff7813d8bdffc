"""Tokens kept in the cells after an end, the sequences that may reuse them, and exact results."""

import numpy as np
import pytest

from inference.engine.backends.backend import Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig
from inference.engine.errors import AccountingError
from inference.engine.kv_cache.entries import CellEntry
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.prefix_search import MIN_SHARED, PrefixSearch
from inference.engine.kv_cache.slot_pool import SlotPool
from inference.engine.protocol.frames import Submit
from inference.engine.sequences.sequence import Sequence
from tests.engine.harness import Harness, RecordingBackend, fake_config, params


class CountingMemory:
    """Positions only, with a sliding window that forgets at once."""

    def __init__(self, window: int = 0) -> None:
        self.window = window
        self.lengths: dict[int, int] = {}
        self.longest: dict[int, int] = {}

    def hold(self, slot: int, length: int) -> None:
        self.lengths[slot] = self.longest[slot] = length

    def remove(self, slot: int) -> None:
        self.lengths[slot] = self.longest[slot] = 0

    def trim(self, slot: int, length: int) -> None:
        self.lengths[slot] = length

    def first_position(self, slot: int) -> int:
        return max(0, self.longest[slot] - self.window) if self.window else 0

    def n_positions(self, slot: int) -> int:
        return self.lengths[slot]

    def copy(self, source: int, target: int, length: int) -> None:
        self.lengths[target], self.longest[target] = length, self.longest[source]

    def save(self, slot: int) -> bytes:
        return b"%d" % self.lengths[slot]

    def load(self, slot: int, state: bytes) -> bool:
        self.hold(slot, int(state))
        return True


def cached(*sequences: list[int], window: int = 0) -> tuple[PrefixCache, SlotPool, CountingMemory]:
    """A cache that holds the given token lists, the first one oldest."""
    memory = CountingMemory(window)
    pool = SlotPool(10_000, len(sequences) + 1)
    cache = PrefixCache(pool, memory)
    for tokens in sequences:
        slot = pool.take_slot()
        assert slot is not None
        pool.fill(slot, len(tokens))
        memory.hold(slot, len(tokens))
        cache.idle.add(CellEntry(slot, np.asarray(tokens, dtype=np.int32)))
    return cache, pool, memory


A = list(range(100, 200))


def match(cache: PrefixCache, prompt: list[int]) -> tuple[int | None, int] | None:
    """Return slot and tokens of the match."""
    found = cache.find(prompt).match
    return (found.slot, found.n_tokens) if found else None


def admitted(cache: PrefixCache, prompt: list[int]) -> Sequence:
    """A sequence with its prefix from the cache."""
    backend = FakeBackend(n_cells=1, n_slots=1, batch_size=1)
    harness = Harness(backend, fake_config())
    submit = Submit(sequence_id="a", prompt=prompt, params=params())
    sequence = harness.loop._factory.create(submit)
    assert cache.admit(sequence, cache.find(prompt).match)
    return sequence


def test_exactly_the_held_tokens_are_continued() -> None:
    cache, _, _ = cached(A)
    assert match(cache, [*A, 1, 2]) == (0, 100)


def test_the_longest_match_wins() -> None:
    cache, _, _ = cached(A[:50], A[:80], A[:60])
    assert match(cache, [*A, 1]) == (1, 80)


def test_an_equal_prompt_computes_its_last_token_again() -> None:
    cache, _, _ = cached(A)
    assert match(cache, A) == (0, 99)


def test_nothing_in_common_is_no_match() -> None:
    cache, _, _ = cached(A)
    assert match(cache, [1, 2, 3]) is None
    assert match(cache, [100]) is None, "one token has to be computed"
    assert match(cache, [*A[: MIN_SHARED - 1], 1]) is None, "fewer are computed sooner than shared"


def test_a_common_prefix_is_shared_and_counted_once() -> None:
    cache, pool, memory = cached(A)
    sequence = admitted(cache, [*A[:60], 1, 2])
    assert (sequence.slot, sequence.n_computed) == (1, 60)
    assert memory.n_positions(1) == 60
    assert (pool.used, pool.cached, pool.n_free) == ({1: 60}, {0: 100}, 9_900)
    assert (pool.n_used, pool.n_cached) == (60, 40)
    pool.check()
    cache.idle.check()
    assert cache.idle.evict_oldest()
    assert (pool.n_used, pool.n_cached, pool.n_free) == (60, 0, 9_940)
    cache.release(sequence, keep=False)
    assert pool.n_free == 10_000
    pool.check()


def test_without_another_slot_the_idle_sequence_is_cut_back() -> None:
    cache, pool, memory = cached(A)
    other = pool.take_slot()
    sequence = admitted(cache, [*A[:60], 1, 2])
    assert (sequence.slot, sequence.n_computed, other) == (0, 60, 1)
    assert (pool.used, pool.cached, pool.n_free) == ({0: 60, 1: 0}, {}, 9_940)
    assert memory.n_positions(0) == 60
    pool.check()


def test_what_left_the_window_is_not_continued() -> None:
    """100 positions with a window of 20 remember 80 ... 99: position 99 can follow (it sees 80 ... 99), 98 cannot."""
    cache, _, _ = cached(A, window=20)
    assert match(cache, [*A, 1]) == (0, 100)
    assert match(cache, [*A[:99], 1]) == (0, 99)
    assert match(cache, [*A[:98], 1]) is None


def test_short_sequences_have_lost_nothing_to_the_window() -> None:
    cache, _, _ = cached(A[:20], window=20)
    assert match(cache, [*A[:17], 1]) == (0, 17)


def test_the_oldest_goes_first_and_use_makes_young() -> None:
    cache, pool, _ = cached(A[:20], A[20:40], A[40:60])
    cache.release(admitted(cache, [*A[:20], 1]), keep=True)
    assert cache.idle.evict_oldest()
    assert set(pool.cached) == {0, 2}
    assert cache.idle.evict_oldest(exclude=2)
    assert set(pool.cached) == {2}
    assert not cache.idle.evict_oldest(exclude=2)


def test_the_same_end_is_kept_once() -> None:
    cache, pool, _ = cached(A, A)
    assert set(pool.cached) == {1}
    cache.idle.check()


def test_a_cell_the_model_does_not_hold_is_told() -> None:
    cache, _, memory = cached(A)
    cache.idle.check()
    memory.lengths[0] = 99
    with pytest.raises(AccountingError, match=r"idle slot 0 has \(100, 100, 99\)"):
        cache.idle.check()


# ---- through the loop ----


def windowed(window: int = 48) -> tuple[Harness, RecordingBackend]:
    harness = Harness.fake(window=window)
    backend = RecordingBackend(harness.backend)
    return Harness(backend, harness.config), backend


def regenerate(harness: Harness, text: str) -> None:
    """The same prompt twice: the second one has to go back to where the first answer began."""
    for name in ("first", "again"):
        harness.ask(name, text)
        harness.run()


def test_a_short_answer_is_regenerated_beside_the_first() -> None:
    harness, backend = windowed()
    regenerate(harness, "[[say: abc]]" + "x" * 80)
    n_prompt = harness.progress("again")[-1][1]
    assert harness.text("again") == "abc"
    assert harness.ended("again").n_cached == n_prompt - 1
    assert [length for _, _, length in backend.copies] == [n_prompt - 1]


def test_a_long_answer_pushed_the_prompts_end_out_of_the_window() -> None:
    harness, backend = windowed()
    regenerate(harness, "[[count: 30]]" + "x" * 80)
    assert backend.copies == []
    assert harness.ended("again").n_cached == 0
    assert harness.text("again") == harness.text("first")


def test_without_the_guard_the_trap_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above really depends on the check of the first position."""
    monkeypatch.setattr(PrefixSearch, "window_reaches", lambda *_: True)
    harness, backend = windowed()
    regenerate(harness, "[[count: 30]]" + "x" * 80)
    assert backend.copies != []
    assert harness.text("again") != harness.text("first")


# ---- on the real model: exactness, flash attention off ----


def tokens_of(backend: LlamaBackend, n_tokens: int) -> list[int]:
    text = " ".join(
        f"Item {number} of the long list is called number {number * 7 % 101}." for number in range(n_tokens)
    )
    return [2, *backend.vocabulary.encode(text, special=False)][:n_tokens]


def feed(backend: LlamaBackend, slot: int, tokens: list[int], chunks: list[int]) -> np.ndarray:
    """Decode ``tokens`` in chunks of the given sizes; the logits after the last one."""
    position = backend.n_positions(slot)
    logits = None
    for size in chunks:
        logits = backend.decode([Slice(slot, position, tokens[position : position + size], True)])
        position += size
    assert position == len(tokens)
    assert logits is not None
    return logits[0].copy()


@pytest.mark.real_model
def test_a_continued_conversation_has_bit_identical_logits(
    real_backend: LlamaBackend, real_config: EngineConfig
) -> None:
    """Through the loop with reuse, against the same chunks fed to an empty slot: no difference at all."""
    recording = RecordingBackend(real_backend)
    harness = Harness(recording, real_config)
    prompt = tokens_of(real_backend, 150)
    harness.submit("first", prompt, max_tokens=5, ignore_eos=True)
    harness.run()
    second = prompt + harness.tokens("first") + tokens_of(real_backend, 180)[150:]
    recording.batches.clear()
    harness.submit("second", second, max_tokens=1)
    harness.run()
    assert harness.ended("second").n_cached == 154

    chunks = [len(batch[0].tokens) for batch in recording.batches]
    reused = recording.rows[-1]
    for slot in range(real_backend.n_slots):
        real_backend.remove(slot)
    first_chunks = [done for done, _ in harness.progress("first")]
    sizes = [b - a for a, b in zip([0, *first_chunks], first_chunks, strict=False)]
    fresh = feed(real_backend, 0, second, [*sizes, 1, 1, 1, 1, *chunks])
    assert float(np.abs(reused - fresh).max()) == 0.0


@pytest.mark.real_model
def test_beside_other_sequences_and_in_other_cells_it_is_still_exact(real_backend: LlamaBackend) -> None:
    """As long as positions keep their place within 16 cells: the kernels sum in lanes of that width, and a sum in
    another order rounds differently (measured: 0.6 to 0.8 for other places, 0.0 for these)."""
    tokens = tokens_of(real_backend, 80)
    alone = feed(real_backend, 0, tokens, [48, 32])
    real_backend.remove(0)
    feed(real_backend, 3, tokens_of(real_backend, 64), [64])
    feed(real_backend, 1, tokens[:48], [48])
    feed(real_backend, 2, tokens_of(real_backend, 32), [32])
    assert np.array_equal(feed(real_backend, 1, tokens, [32]), alone)


@pytest.mark.real_model
def test_a_trim_within_the_window_is_exact(real_backend: LlamaBackend) -> None:
    tokens = tokens_of(real_backend, 200)
    changed = [*tokens[:160], *tokens[100:130]]
    feed(real_backend, 0, tokens, [160, 40])
    assert real_backend.first_position(0) == 0
    real_backend.trim(0, 160)
    reused = feed(real_backend, 0, changed, [30])
    real_backend.remove(0)
    assert np.array_equal(reused, feed(real_backend, 1, changed, [160, 30]))


@pytest.mark.real_model
def test_the_sliding_window_trap_is_real_and_guarded(real_config: EngineConfig) -> None:
    """Trimmed beyond the window, llama.cpp computes wrong logits without an error; the guard refuses that.

    One slot only: then the layers with a window have 512 + 256 cells and must forget; with more slots, later.
    """
    backend = LlamaBackend(real_config, n_slots=1)
    assert backend.window == 512
    tokens = tokens_of(backend, 1100)
    feed(backend, 0, tokens, [256, 256, 256, 256, 76])
    pool = SlotPool(backend.n_cells, 1)
    slot = pool.take_slot()
    assert slot == 0
    pool.fill(0, 1100)
    cache = PrefixCache(pool, backend)
    cache.idle.add(CellEntry(0, np.asarray(tokens, dtype=np.int32)))
    changed = [*tokens[:560], 5, *tokens[561:600]]
    assert match(cache, [*tokens, 5]) == (0, 1100), "at its exact end it can go on"
    assert match(cache, changed) is None, "560 are the same, and 49 ... 559 would be needed"

    backend.trim(0, 560)
    wrong = feed(backend, 0, changed, [40])
    backend.remove(0)
    right = feed(backend, 0, changed, [256, 256, 48, 40])
    backend.close()
    assert float(np.abs(wrong - right).max()) > 0.5
