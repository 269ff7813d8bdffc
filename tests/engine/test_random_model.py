"""Anything may happen in any order, and the accounting and every token's logits are right, to the last bit.

Arrivals, follow-ups, branches, cancels, restarts over a disk, moves to another runner, in a pool too small for all
of it, so that states are saved and loaded and answers give way: on the fake and on the real model, flash attention off.
``tracing`` describes the comparison, ``aligned`` the layout of the real model's cells that makes it possible.
GEMMA_RANDOM_EXAMPLES=50 looks further.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from inference.engine.backends.backend import Backend, Logits, Slice
from inference.engine.backends.fake import FIRST_BYTE
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.config import EngineConfig
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.prefix_search import PrefixSearch
from inference.engine.protocol.frames import CacheExported, Deferred, Export, ExportCache, Exported, Import, Submit
from inference.engine.sampling.prompt_lookup import PromptLookup
from tests.engine.aligned import WINDOW, AlignedBackend
from tests.engine.harness import Harness, fake_config
from tests.engine.tracing import History, Reference, TracedBackend, tokens_of

N_CELLS = 180
PARALLEL = 3
N_SLOTS = 4
N_EXAMPLES = int(os.environ.get("GEMMA_RANDOM_EXAMPLES", "0"))


class Playground:
    """An engine over a traced model, another one in reserve, its requests, and the reference."""

    def __init__(self, backend: Backend, other: Backend, reference: Backend, config: EngineConfig) -> None:
        for slot in range(backend.n_slots):
            backend.remove(slot)
            other.remove(slot)
        self.traced, self.reference, self.config = TracedBackend(backend), reference, config
        self.other = TracedBackend(other, self.traced)
        self.folder = Path(tempfile.mkdtemp(prefix="gemma-random-"))
        self.prompts: dict[str, list[int]] = {}
        self.ended: dict[str, list[int]] = {}
        self.submitted: dict[str, Submit] = {}
        self.n_moved = 0
        self.begin()

    def begin(self) -> None:
        self.harness = Harness(self.traced, self.config, disk=DiskStore(self.folder, 1 << 30, "random"))
        # As many draft tokens as possible: their rows cost nothing.
        self.harness.loop._batch_cost.ms = [0.0, *[1.0] * self.traced.max_outputs]

    def submit(self, prompt: list[int], **changes: object) -> str:
        name = str(len(self.prompts))
        self.prompts[name] = prompt = prompt[: N_CELLS - 10]
        self.harness.submit(name, prompt, ignore_eos=True, **changes)  # type: ignore[arg-type]
        self.submitted[name] = self.harness.submitted[-1]
        return name

    def words(self, seed: int, n_tokens: int) -> list[int]:
        """Tokens of no meaning, the same for the same seed; a longer one begins with the shorter.

        Some repeat themselves: drafts and the model can predict their continuation.
        """
        draw = random.Random(seed)
        n_vocabulary = self.traced.vocabulary.n_tokens
        period = 6 if seed % 3 == 1 else n_tokens
        drawn = [draw.randrange(n_vocabulary // 50, n_vocabulary // 2) for _ in range(period)]
        return [drawn[index % period] for index in range(n_tokens)]

    def tokens_of(self, name: str) -> list[int]:
        return self.harness.tokens(name) or self.ended.get(name, [])

    def step(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.harness.loop.step()

    def restart(self) -> None:
        """Another process: the cells are lost, the files are not."""
        for name in self.prompts:
            if self.harness.tokens(name):
                self.ended[name] = self.harness.tokens(name)
        self.harness.loop.close(10)
        for slot in range(self.traced.n_slots):
            self.traced.remove(slot)
        self.begin()

    def move(self, n_states: int) -> None:
        """Move every sequence to the other runner, and the youngest states; the cells of the first one are lost."""
        folder = self.folder / "moving"
        folder.mkdir(exist_ok=True)
        loop, frames = self.harness.loop, self.harness.frames
        loop.handle(ExportCache(folder=str(folder), max_bytes=1 << 30, budget_ms=10_000.0))
        loop.handle(Export(list(self.prompts), str(folder)))
        *_, cache, exported = frames
        assert isinstance(cache, CacheExported)
        assert isinstance(exported, Exported)
        for given in exported.sequences:
            self.ended[given.sequence_id] = self.tokens_of(given.sequence_id)
        loop.close(10)
        for slot in range(self.traced.n_slots):
            self.traced.remove(slot)
        self.traced, self.other = self.other, self.traced
        self.begin()
        self.harness.frames += frames
        self.harness.loop.handle(Import(cache.paths[:n_states]))
        for given in exported.sequences:
            emitted = self.harness.tokens(given.sequence_id)
            changed = {"emitted": emitted, "state": given.path}
            self.harness.loop.handle(msgspec.structs.replace(self.submitted[given.sequence_id], **changed))
        self.n_moved += len(exported.sequences)

    def check_books(self) -> None:
        pool, scheduler = self.harness.loop.pool, self.harness.loop.scheduler
        pool.check()
        holdings = pool.used | pool.cached
        assert {slot: self.traced.n_positions(slot) for slot in holdings} == holdings
        assert {each.slot for each in scheduler.sequences.running} == set(pool.used)
        held = {
            each.slot: each.tokens[: each.n_computed] for each in scheduler.sequences.running if each.slot is not None
        }
        held |= {slot: entry.tokens.tolist() for slot, entry in scheduler.cache.idle._entries.items()}
        assert {slot: tokens_of(self.traced.histories[slot]) for slot in held} == held, "cells hold the counted tokens"

    def finish(self) -> list[tuple[History, float]]:
        """Run to the end; all logits that are not the reference's."""
        self.harness.run()
        self.harness.loop.close(10)
        shutil.rmtree(self.folder)
        return list(Reference(self.reference).differences(self.traced.found))


Make = Callable[[], Playground]


class Forgetful(FakeBackend):
    """Computes its script anew each time: the answer of one sequence may be the end of another one's prompt."""

    def decode(self, slices: Many[Slice]) -> list[Logits] | None:
        for each in slices:
            self._slots[each.slot].script = None
        return super().decode(slices)


def fake_playground() -> Playground:
    config = fake_config(context_size=N_CELLS, parallel=PARALLEL, batch_size=64, draft_max=3)
    backend = FakeBackend(n_cells=N_CELLS, n_slots=N_SLOTS, batch_size=64, window=WINDOW)
    other = FakeBackend(n_cells=N_CELLS, n_slots=N_SLOTS, batch_size=64, window=WINDOW)
    return Playground(backend, other, Forgetful(n_cells=2 * N_CELLS, n_slots=2, batch_size=64, window=WINDOW), config)


@pytest.fixture(scope="module")
def real_playground(real_config: EngineConfig) -> Iterator[Make]:
    config = msgspec.structs.replace(real_config, context_size=N_CELLS, parallel=PARALLEL, batch_size=64, draft_max=3)
    backend, other = AlignedBackend(config, n_slots=N_SLOTS), AlignedBackend(config, n_slots=N_SLOTS)
    reference = AlignedBackend(config, n_slots=2)
    assert backend.window == WINDOW
    yield lambda: Playground(backend, other, reference, config)
    backend.close()
    other.close()
    reference.close()


def nearly_right(_: PromptLookup, tokens: list[int], at_most: int) -> list[int]:
    """Two right tokens and a wrong one: the fake model's answers have no repetition."""
    answer = [FIRST_BYTE + byte for byte in b"You said: "]
    n_said = next(n for n in range(len(answer), -1, -1) if tokens[len(tokens) - n :] == answer[:n])
    return [*answer[n_said : n_said + 2], FIRST_BYTE][:at_most]


class Anything(RuleBasedStateMachine):
    """The rules; ``make`` is set for each model."""

    make: Make = staticmethod(fake_playground)
    done: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.ground = type(self).make()

    @rule(
        seed=st.integers(min_value=0, max_value=2),
        n_tokens=st.sampled_from([66, 72, 80]),
        n_out=st.integers(min_value=1, max_value=9),
        priority=st.integers(min_value=1, max_value=2),
        cache_prompt=st.sampled_from([True, True, True, False]),
    )
    def arrive(self, seed: int, n_tokens: int, n_out: int, priority: int, cache_prompt: bool) -> None:
        prompt = self.ground.words(seed, n_tokens)
        self.ground.submit(prompt, max_tokens=n_out, priority=priority, cache_prompt=cache_prompt)

    @precondition(lambda self: self.ground.prompts)
    @rule(data=st.data(), n_cut=st.sampled_from([0, 0, 1, 10, 40]), n_new=st.integers(min_value=1, max_value=40))
    def go_on(self, data: st.DataObject, n_cut: int, n_new: int) -> None:
        """A prompt that begins with, or within, one that was there before and its answer."""
        name = data.draw(st.sampled_from(sorted(self.ground.prompts)))
        history = self.ground.prompts[name] + self.ground.tokens_of(name)
        history = history[: max(1, len(history) - n_cut)]
        self.ground.submit(history + self.ground.words(100 + n_new, n_new), max_tokens=2)

    @precondition(lambda self: self.ground.prompts)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.ground.harness.cancel(data.draw(st.sampled_from(sorted(self.ground.prompts))))

    @rule(n_steps=st.sampled_from([1, 2, 4, 12, 30]))
    def step(self, n_steps: int) -> None:
        self.ground.step(n_steps)

    @precondition(lambda self: self.ground.prompts)
    @rule()
    def restart(self) -> None:
        self.ground.restart()

    @precondition(lambda self: self.ground.prompts)
    @rule(n_states=st.integers(min_value=0, max_value=3))
    def move(self, n_states: int) -> None:
        self.ground.move(n_states)

    @invariant()
    def the_books_balance(self) -> None:
        self.ground.check_books()

    def teardown(self) -> None:
        assert self.ground.finish() == []
        traced = self.ground.traced
        self.done["rows"] += sum(len(rows) for _, rows in traced.found)
        n_drafts = [len(rows) - 1 for _, rows in traced.found]
        self.done["guessed"] += sum(n_drafts)
        self.done["wrong"] += sum(chunk.n_kept < len(chunk.tokens) for each, _ in traced.found for chunk in each[-2:-1])
        self.done["copies"] += len(traced.copies)
        self.done["trims"] += len(traced.trims)
        self.done["loads"] += traced.n_loaded
        self.done["moved"] += self.ground.n_moved
        self.done["gave way"] += sum(isinstance(frame, Deferred) for frame in self.ground.harness.frames)


def run_anything(make: Make, n_examples: int) -> Counter[str]:
    """The same examples in every run, unless GEMMA_RANDOM_EXAMPLES asks for more; returns their events."""

    class Here(Anything):
        pass

    kind: type[Anything] = Here
    kind.make, kind.done = staticmethod(make), Counter()
    profile = settings(
        max_examples=N_EXAMPLES or n_examples,
        stateful_step_count=20,
        derandomize=not N_EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(kind, settings=profile)
    return kind.done


def test_anything_on_the_fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptLookup, "draft", nearly_right)
    done = run_anything(fake_playground, n_examples=130)
    assert min(done[what] for what in ("rows", "copies", "loads", "moved", "gave way", "guessed", "wrong")) > 10, done


@pytest.mark.real_model
@pytest.mark.timeout(0 if N_EXAMPLES else 300)
def test_anything_on_the_real_model(real_playground: Make) -> None:
    done = run_anything(real_playground, n_examples=6)
    assert done["rows"] > 20, done
    assert done["guessed"] > done["wrong"] > 0, done


# ---- the comparison can fail ----


def branch_from_a_state(ground: Playground) -> list[tuple[History, float]]:
    """One conversation goes into a state, comes back at its end, and another one begins like its first part."""
    first = ground.submit(ground.words(1, 110), max_tokens=3)
    ground.step(20)
    for seed in (2, 3):
        ground.submit(ground.words(seed, 120), max_tokens=1)
        ground.step(20)
    ground.submit(ground.words(1, 110) + ground.tokens_of(first) + ground.words(9, 5), max_tokens=2)
    ground.step(20)
    ground.submit(ground.words(1, 80) + ground.words(8, 20), max_tokens=2)
    return ground.finish()


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def ground(request: pytest.FixtureRequest) -> Playground:
    if request.param == "fake":
        return fake_playground()
    made: Playground = request.getfixturevalue("real_playground")()
    return made


def test_a_branch_from_a_state_is_right(ground: Playground) -> None:
    assert branch_from_a_state(ground) == []
    assert ground.traced.n_loaded > 0


def test_answers_that_move_again_and_again_are_right(ground: Playground) -> None:
    """Longer than the window, two with a common prefix, one that shares nothing; in a prompt, and between tokens."""
    ground.submit(ground.words(1, 70), max_tokens=9)
    ground.submit(ground.words(1, 68) + ground.words(3, 6), max_tokens=9)
    ground.submit(ground.words(2, 20), max_tokens=9, cache_prompt=False)
    for n_steps in (1, 2, 3, 1, 2):
        ground.step(n_steps)
        ground.move(n_states=2)
    assert ground.finish() == []
    assert ground.n_moved >= 9
    assert [len(ground.tokens_of(name)) for name in ("0", "1", "2")] == [9, 9, 9]


def test_without_the_guard_of_the_window_it_is_not(ground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefixSearch, "window_reaches", lambda *_: True)
    assert branch_from_a_state(ground) != []


def test_with_copies_of_one_token_less_it_is_not(ground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot with fewer positions than the pool counts: the next batch leaves a gap."""
    inner, copy = ground.traced.inner, ground.traced.inner.copy
    monkeypatch.setattr(inner, "copy", lambda source, target, length: copy(source, target, length - 1))
    ground.submit(ground.words(1, 110), max_tokens=3)
    ground.step(1)
    ground.submit(ground.words(1, 100) + ground.words(8, 20), max_tokens=2)
    with pytest.raises(Exception, match="holds|decode"):
        ground.finish()


@pytest.mark.real_model
def test_with_one_wrong_byte_in_its_states_it_is_not(real_playground: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = real_playground()
    inner, save = ground.traced.inner, ground.traced.inner.save

    def damaged(slot: int) -> bytes:
        state = bytearray(save(slot))
        state[len(state) // 2] ^= 0x40  # the exponent of a half, or its neighbour
        return bytes(state)

    monkeypatch.setattr(inner, "save", damaged)
    assert branch_from_a_state(ground) != []
