"""A common prefix is computed once, by any sequence, and the results are right with a sliding window too."""

from collections.abc import Sequence as Many

import numpy as np
import pytest

from inference.engine.backends.backend import Backend, Logits, Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig
from inference.engine.kv_cache.prefix_search import PrefixSearch
from tests.engine.harness import Harness, RecordingBackend
from tests.engine.test_prefix_reuse import feed, tokens_of

N_COMMON = 900


def n_prefilled(harness: Harness) -> int:
    return sum(step.n_prefill for step in harness.steps())


def prompt(harness: Harness, prefix: str, end: str) -> list[int]:
    vocabulary = harness.backend.vocabulary
    return [vocabulary.bos or 0, *vocabulary.encode(prefix, special=False), *vocabulary.encode(end, special=False)]


def windowed(window: int = 48, **changes: object) -> tuple[Harness, RecordingBackend]:
    harness = Harness.fake(window=window, **changes)  # type: ignore[arg-type]
    backend = RecordingBackend(harness.backend)
    return Harness(backend, harness.config), backend


# ---- computed once ----


@pytest.mark.parametrize("window", [0, 48])
def test_sixteen_requests_with_the_same_prefix_compute_it_once(window: int) -> None:
    harness = Harness.fake(window=window, parallel=16, context_size=8192)
    for number in range(16):
        harness.submit(str(number), prompt(harness, "s" * N_COMMON, f"[[say: answer {number}]]"))
    harness.run()
    own = [len(f"{number}]]") for number in range(16)]
    assert n_prefilled(harness) == 1 + N_COMMON + len("[[say: answer ") + sum(own)
    assert [harness.text(str(number)) for number in range(16)] == [f"answer {number}" for number in range(16)]


@pytest.mark.real_model
def test_the_same_on_the_real_model(real_backend: LlamaBackend, real_config: EngineConfig) -> None:
    harness = Harness(real_backend, real_config)
    common = tokens_of(real_backend, 300)
    for number in range(4):
        harness.submit(str(number), [*common, 1000 + 7 * number, 236, 77], max_tokens=4, ignore_eos=True)
    harness.run()
    assert n_prefilled(harness) == 300 + 4 * 3
    assert all(len(harness.tokens(str(number))) == 4 for number in range(4))


def test_a_later_request_waits_for_the_prefix_that_is_being_computed() -> None:
    harness = Harness.fake()
    harness.submit("leader", prompt(harness, "s" * 600, "[[say: first]]"))
    harness.loop.step()
    harness.submit("follower", prompt(harness, "s" * 600, "and now [[say: second]]"))
    harness.submit("other", prompt(harness, "o" * 40, "[[say: third]]"))
    harness.step_until_first_token("other")
    assert harness.progress("follower") == [], "it waits, and nobody else has to wait with it"
    harness.run()
    assert harness.ended("follower").n_cached == 601
    assert [harness.text(name) for name in ("leader", "follower", "other")] == ["first", "second", "third"]


def test_who_is_waited_for_may_be_cancelled() -> None:
    harness = Harness.fake()
    harness.submit("leader", prompt(harness, "s" * 600, "x"))
    harness.loop.step()
    harness.submit("follower", prompt(harness, "s" * 600, "[[say: alone]]"))
    harness.loop.step()
    harness.cancel("leader")
    harness.run()
    assert harness.text("follower") == "alone"
    assert harness.ended("follower").n_cached > 0, "what the other had computed is not lost"


def test_interactive_work_does_not_wait_for_batch_work() -> None:
    harness = Harness.fake()
    harness.submit("batch", prompt(harness, "s" * 600, "x"), priority=2)
    harness.loop.step()
    harness.submit("interactive", prompt(harness, "s" * 600, "y"), priority=1)
    harness.loop.step()
    assert harness.progress("interactive") != []


class PinnedCells(RecordingBackend):
    """A model whose windowed layers have no cells left as long as two slots share some."""

    shared: set[int]

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        if len({each.slot for each in slices}) > 1 and self.shared:
            return None
        return super().decode(slices)

    def copy(self, source: int, target: int, length: int) -> None:
        self.shared.add(target)
        super().copy(source, target, length)

    def remove(self, slot: int) -> None:
        self.shared.discard(slot)
        super().remove(slot)


@pytest.mark.parametrize("cache_ram_mb", [0, 512])
def test_cells_that_sharing_holds_fast_end_the_sharing_not_the_answers(cache_ram_mb: int) -> None:
    harness = Harness.fake(cache_ram_mb=cache_ram_mb)
    backend = PinnedCells(harness.backend)
    backend.shared = set()
    harness = Harness(backend, harness.config)
    for name in ("one", "two"):
        harness.submit(name, prompt(harness, "s" * 300, f"[[say: {name} is done]]"))
    harness.run()
    assert backend.copies != []
    assert [harness.text(name) for name in ("one", "two")] == ["one is done", "two is done"]


# ---- the window ----


def test_the_second_to_share_a_prefix_leaves_a_snapshot_for_the_third() -> None:
    """The first has left the prefix behind; where it ends is learned from the second, and saved."""
    harness, backend = windowed()
    for name in ("one", "two", "three"):
        harness.submit(name, prompt(harness, "s" * 300, f"{name} [[count: 60]]"))
        harness.run()
    assert harness.ended("two").n_cached == 0
    assert harness.ended("three").n_cached == 301
    assert backend.n_loaded == 1
    assert harness.text("three") == "".join(f"{number} " for number in range(1, 61))


def branch(harness: Harness) -> str:
    """A second question about a prefix that the first one's long answer pushed out of the window."""
    harness.submit("first", prompt(harness, "s" * 300, "one [[count: 60]]"))
    harness.run()
    harness.submit("second", prompt(harness, "s" * 300, "two [[say: right]]"))
    harness.run()
    return harness.text("second")


def test_a_prefix_that_left_the_window_is_not_copied() -> None:
    harness, backend = windowed()
    assert branch(harness) == "right"
    assert backend.copies == []


def test_without_the_guard_a_copy_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefixSearch, "window_reaches", lambda *_: True)
    harness, backend = windowed()
    assert branch(harness) != "right"
    assert backend.copies != []


def evicted_branch(harness: Harness) -> str:
    """The same, with the first conversation in RAM only."""
    harness.submit("first", prompt(harness, "s" * 300, "one [[count: 60]]"))
    harness.run()
    cache = harness.loop.scheduler.cache
    assert cache.idle.evict_oldest()
    assert len(cache.snapshots) == 1
    harness.submit("second", prompt(harness, "s" * 300, "two [[say: right]]"))
    harness.run()
    return harness.text("second")


def test_a_snapshot_is_not_gone_back_into() -> None:
    harness, backend = windowed()
    assert evicted_branch(harness) == "right"
    assert (backend.n_loaded, backend.trims) == (0, [])


def test_without_the_guard_a_snapshot_answers_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefixSearch, "window_reaches", lambda *_: True)
    harness, backend = windowed()
    assert evicted_branch(harness) != "right"
    assert backend.n_loaded == 1


# ---- the contract of both backends ----


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "fake":
        return FakeBackend(n_cells=4096, n_slots=8, batch_size=256)
    found: Backend = request.getfixturevalue("real_backend")
    return found


TOKENS = [2, *range(100, 147)]


def next_token(backend: Backend, slot: int) -> int:
    logits = backend.decode([Slice(slot, backend.n_positions(slot), [150], True)])
    assert logits is not None
    return int(logits[0].argmax())


def test_a_copy_goes_on_as_its_source_would(backend: Backend) -> None:
    backend.decode([Slice(0, 0, TOKENS, False)])
    backend.copy(0, 1, 32)
    assert (backend.n_positions(0), backend.n_positions(1), backend.first_position(1)) == (48, 32, 0)
    backend.remove(0)
    backend.decode([Slice(2, 0, TOKENS[:32], False)])
    assert next_token(backend, 1) == next_token(backend, 2)
    assert backend.n_positions(1) == 33


def test_a_state_comes_back_into_another_slot(backend: Backend) -> None:
    backend.decode([Slice(0, 0, TOKENS, False)])
    state = backend.save(0)
    assert backend.load(3, state)
    assert backend.n_positions(3) == 48
    assert next_token(backend, 3) == next_token(backend, 0)


def test_a_state_that_is_cut_off_leaves_the_slot_empty(backend: Backend) -> None:
    backend.decode([Slice(0, 0, TOKENS, False)])
    state = backend.save(0)
    assert not backend.load(1, state[: len(state) // 2])
    assert not backend.load(1, b"")
    assert backend.n_positions(1) == 0
    assert backend.load(1, state), "and it can be used"


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def small(request: pytest.FixtureRequest) -> Backend:
    """256 cells, not one more."""
    if request.param == "fake":
        return FakeBackend(n_cells=256, n_slots=3, batch_size=128)
    path = request.getfixturevalue("model_path")
    return LlamaBackend(EngineConfig(model_path=path, context_size=256, batch_size=128, threads=1), n_slots=3)


def test_cells_that_two_slots_hold_are_taken_once(small: Backend) -> None:
    """A copy takes no cell, and frees none before both slots do: the accounting assumes it, the model shows it."""
    small.decode([Slice(0, 0, [5] * 120, False)])
    small.copy(0, 1, 100)
    assert small.decode([Slice(1, 100, [5] * 127, False)]) == []
    assert small.decode([Slice(1, 227, [5] * 9, False)]) == []
    assert small.decode([Slice(1, 236, [5], False)]) is None, "120 + 136 are 256"
    small.remove(0)
    assert small.decode([Slice(1, 236, [5] * 20, False)]) == [], "of slot 0 alone were 20"
    assert small.decode([Slice(1, 256, [5], False)]) is None
    small.close()


def test_a_state_needs_cells_of_its_own(small: Backend) -> None:
    small.decode([Slice(0, 0, [5] * 120, False)])
    state = small.save(0)
    assert small.load(1, state)
    assert not small.load(2, state)
    assert small.n_positions(2) == 0
    small.close()


# ---- exact on the real model, flash attention off, same chunks ----


@pytest.mark.real_model
def test_a_copy_has_bit_identical_logits(real_backend: LlamaBackend) -> None:
    """32 cells lie between the shared prefix and its continuation: positions keep their place within 16."""
    tokens = tokens_of(real_backend, 224)
    feed(real_backend, 0, tokens[:192], [160, 32])
    real_backend.copy(0, 1, 160)
    shared = feed(real_backend, 1, tokens, [64])
    for slot in (0, 1):
        real_backend.remove(slot)
    assert np.array_equal(shared, feed(real_backend, 2, tokens, [160, 64]))


@pytest.mark.real_model
@pytest.mark.parametrize("n_tokens", [320, 1088])
def test_a_loaded_state_has_bit_identical_logits(real_backend: LlamaBackend, n_tokens: int) -> None:
    """Into other cells, and with a length beyond the window, of which the state holds only the last 512."""
    tokens = tokens_of(real_backend, n_tokens + 32)
    chunks = [64] * (n_tokens // 64)
    feed(real_backend, 0, tokens[:n_tokens], chunks)
    state = real_backend.save(0)
    stayed = feed(real_backend, 0, tokens, [32])
    feed(real_backend, 3, tokens[:64], [64])
    assert real_backend.load(1, state)
    assert np.array_equal(stayed, feed(real_backend, 1, tokens, [32]))


@pytest.mark.real_model
def test_the_window_of_a_copy_and_of_a_state_on_the_real_model(real_config: EngineConfig) -> None:
    """Reuse that the guard refuses would be wrong, and reuse that it allows is exact."""
    backend = LlamaBackend(real_config, n_slots=2)
    tokens = tokens_of(backend, 1600)
    feed(backend, 0, tokens, [256] * 6 + [64])
    state = backend.save(0)
    backend.remove(0)
    assert backend.load(0, state)
    assert backend.first_position(0) == 1600 - 512
    changed = [*tokens[:1200], 5, *tokens[1201:1240]]
    backend.copy(0, 1, 1200)
    wrong = feed(backend, 1, changed, [40])
    for slot in (0, 1):
        backend.remove(slot)
    right = feed(backend, 0, changed, [256] * 4 + [176, 40])
    backend.close()
    assert float(np.abs(wrong - right).max()) > 0.5
