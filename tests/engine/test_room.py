"""A KV cache too small for all: waiting sequences are reported, none fails half-way, preempted ones continue."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inference.engine.backends.backend import Backend
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import Device, EngineConfig
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.protocol.frames import Deferred, PrefillProgress
from tests.engine.harness import Harness, RecordingBackend, fake_config, turn
from tests.engine.near_ties import assert_same_up_to_rounding

N_CELLS = 300
N_PROMPT = 95
N_OUT = 20
NAMES = ("master", "gardener", "cook")


@dataclass
class Small:
    """A pool that three answers fill before they end, and how to make a loop over it."""

    backend: Backend
    config: EngineConfig
    folder: Path

    def harness(self, *, cache_ram_mb: int = 512, disk: bool = False) -> Harness:
        for slot in range(self.backend.n_slots):
            self.backend.remove(slot)
        config = msgspec.structs.replace(self.config, cache_ram_mb=cache_ram_mb)
        files = DiskStore(self.folder, 1 << 30, "small") if disk else None
        return Harness(RecordingBackend(self.backend), config, disk=files)

    def prompt(self, name: str) -> list[int]:
        text = f"The {name} of the house said that " * 20
        return self.backend.vocabulary.encode(text, special=False)[:N_PROMPT]


@pytest.fixture(scope="module")
def small_real(real_config: EngineConfig) -> Iterator[tuple[LlamaBackend, EngineConfig]]:
    config = msgspec.structs.replace(real_config, context_size=N_CELLS, parallel=3, batch_size=64)
    backend = LlamaBackend(config, n_slots=6)
    yield backend, config
    backend.close()


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Small:
    if request.param == "fake":
        return fake_small(tmp_path)
    backend, config = request.getfixturevalue("small_real")
    return Small(backend, config, tmp_path)


def held(harness: Harness, name: str) -> list[Deferred]:
    return [frame for frame in harness.frames if isinstance(frame, Deferred) and frame.sequence_id == name]


def fill_beyond(small: Small, *, cache_prompt: bool, cache_ram_mb: int, disk: bool) -> Harness:
    """Three answers that do not fit together, run to their ends."""
    harness = small.harness(cache_ram_mb=cache_ram_mb, disk=disk)
    for name, priority in zip(NAMES, (2, 1, 1), strict=True):
        changes = {"max_tokens": N_OUT, "ignore_eos": True, "cache_prompt": cache_prompt}
        harness.submit(name, small.prompt(name), priority=priority, **changes)  # type: ignore[arg-type]
    harness.run()
    harness.loop.close(10)
    harness.loop.pool.check()
    return harness


def check_that_one_gave_way(small: Small, harness: Harness, n_again: int) -> None:
    """Preempt the lowest in rank, and count the cost; every answer equals the one computed alone."""
    gave_way = held(harness, "master")
    assert gave_way, f"{N_PROMPT} + {N_OUT} tokens each do not fit {N_CELLS} cells"
    assert "full" in gave_way[0].reason
    assert held(harness, "gardener") == []
    n_computed = sum(step.n_tokens for step in harness.steps())
    assert n_computed <= sum(N_PROMPT + N_OUT - 1 for _ in NAMES) + n_again * len(gave_way)
    for name in NAMES:
        assert harness.ended(name).reason == "length"
        alone = small.harness()
        alone.submit(name, small.prompt(name), max_tokens=N_OUT, ignore_eos=True, cache_prompt=False)
        expected = alone.run().tokens(name)
        assert_same_up_to_rounding(small.backend, small.prompt(name), harness.tokens(name), expected)


def fake_small(folder: Path) -> Small:
    backend = FakeBackend(n_cells=N_CELLS, n_slots=6, batch_size=64, window=32)
    return Small(backend, fake_config(context_size=N_CELLS, parallel=3), folder)


@pytest.mark.parametrize(
    ("cache_prompt", "cache_ram_mb", "disk", "n_again"),
    [
        (True, 512, False, 1),  # a snapshot in RAM: only the token that was to be computed next
        (True, 512, True, 1),
        (True, 0, True, 1),  # on disk alone
        (False, 512, False, 1),  # shares no prefix, and keeps its own state
        (False, 0, True, N_CELLS),  # no room for it: computed again, since an unshared state is not written to disk
        (True, 0, False, N_CELLS),
    ],
)
def test_the_lowest_in_rank_gives_way_and_goes_on(
    tmp_path: Path, cache_prompt: bool, cache_ram_mb: int, disk: bool, n_again: int
) -> None:
    small = fake_small(tmp_path)
    harness = fill_beyond(small, cache_prompt=cache_prompt, cache_ram_mb=cache_ram_mb, disk=disk)
    check_that_one_gave_way(small, harness, n_again)


@pytest.mark.real_model
@pytest.mark.parametrize("cache_prompt", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_same_on_the_real_model(
    small_real: tuple[LlamaBackend, EngineConfig], tmp_path: Path, cache_prompt: bool
) -> None:
    small = Small(*small_real, tmp_path)
    harness = fill_beyond(small, cache_prompt=cache_prompt, cache_ram_mb=512, disk=True)
    check_that_one_gave_way(small, harness, n_again=1)


def test_what_gave_way_and_is_cancelled_keeps_nothing(tmp_path: Path) -> None:
    harness = fake_small(tmp_path).harness()
    small = fake_small(tmp_path)
    for name, priority in zip(NAMES, (2, 1, 1), strict=True):
        harness.submit(
            name, small.prompt(name), priority=priority, max_tokens=N_OUT, ignore_eos=True, cache_prompt=False
        )
    while not held(harness, "master"):
        assert harness.loop.step()
    sequence = harness.loop.scheduler.sequences.find("master")
    assert sequence is not None
    assert sequence.swapped_state is not None
    assert len(harness.loop.scheduler.cache.snapshots) == 0, "nobody else can find it"
    harness.cancel("master")
    harness.run()
    assert harness.ended("master").reason == "cancelled"
    assert harness.loop.pool.n_free == N_CELLS


def test_who_does_not_fit_is_told_once_and_that_it_goes_on(small: Small) -> None:
    harness = small.harness()
    big = (small.prompt("master") * 3)[:200]
    harness.submit("first", big, max_tokens=5, ignore_eos=True)
    harness.loop.step()
    harness.submit("second", small.prompt("cook") + big[90:], max_tokens=5, ignore_eos=True)
    for _ in range(3):
        harness.loop.step()
    assert len(held(harness, "second")) == 1
    assert "memory is full" in held(harness, "second")[0].reason
    assert held(harness, "first") == []
    harness.run()
    kinds = [type(frame) for frame in harness.frames if getattr(frame, "sequence_id", None) == "second"]
    assert kinds.index(Deferred) < kinds.index(PrefillProgress)
    assert harness.ended("second").reason == "length"
    assert len(harness.tokens("second")) == 5


def test_the_end_of_the_context_is_a_length(small: Small) -> None:
    harness = small.harness()
    harness.submit("long", (small.prompt("cook") * 4)[: N_CELLS - 7], max_tokens=1000, ignore_eos=True)
    harness.run()
    assert harness.ended("long").reason == "length"
    assert len(harness.tokens("long")) == 7


# ---- deadlines ----


def test_a_deadline_in_the_middle_of_the_prompt(small: Small) -> None:
    harness = small.harness()
    harness.submit("late", small.prompt("cook") * 2, timeout_secs=3600.0, max_tokens=5)
    harness.loop.step()
    assert harness.progress("late")[-1][0] < 190
    sequence = harness.loop.scheduler.sequences.find("late")
    assert sequence is not None
    sequence.ends_at = sequence.arrived_at  # the hour is over
    n_steps = len(harness.steps())
    harness.loop.step()
    assert harness.ended("late").reason == "timeout"
    assert len(harness.steps()) == n_steps, "nothing more was computed of it"
    assert harness.tokens("late") == []


def test_a_deadline_in_the_middle_of_the_answer_keeps_the_text_and_the_others(small: Small) -> None:
    harness = small.harness()
    for name in ("late", "good"):
        harness.submit(name, small.prompt(name), timeout_secs=3600.0, max_tokens=20, ignore_eos=True)
    harness.step_until_first_token("late")
    sequence = harness.loop.scheduler.sequences.find("late")
    assert sequence is not None
    sequence.ends_at = 0.0
    n_said = len(harness.tokens("late"))
    harness.run()
    assert harness.ended("late").reason == "timeout"
    assert harness.ended("late").n_kept == n_said == len(harness.tokens("late"))
    assert len(harness.tokens("good")) == 20


def test_a_deadline_while_waiting_for_room(small: Small) -> None:
    harness = small.harness()
    harness.submit("first", small.prompt("master") * 3, max_tokens=5, ignore_eos=True)
    harness.loop.step()
    harness.submit("late", small.prompt("cook") * 3, timeout_secs=0.0, max_tokens=5)
    harness.submit("patient", small.prompt("cook") * 3, max_tokens=5, ignore_eos=True)
    harness.loop.step()
    assert harness.ended("late").reason == "timeout"
    assert harness.ends("patient") == []
    harness.run()
    assert len(harness.tokens("patient")) == 5


def test_a_time_that_is_over_on_arrival_computes_nothing(small: Small) -> None:
    harness = small.harness()
    harness.submit("late", small.prompt("cook"), timeout_secs=0.0)
    assert not harness.loop.step()
    assert harness.ended("late").reason == "timeout"
    assert harness.steps() == []


def test_idle_conversations_do_not_lie_in_the_way_of_others() -> None:
    """Attention passes over every cell in use: but for the youngest they wait in RAM, and go on from there."""
    harness = Harness.fake(context_size=16_384, parallel=8)
    texts = [f"{number} " + "x" * 400 for number in range(8)]
    for number, text in enumerate(texts):
        harness.ask(str(number), text)
        harness.run()
    pool, cache = harness.loop.pool, harness.loop.scheduler.cache
    youngest = len(prompt_of(harness, texts[-1])) + len(harness.tokens("7"))
    assert pool.n_cached - youngest <= (harness.config.max_idle_cells or 0)
    assert len(cache.snapshots) >= 5
    prompt = prompt_of(harness, texts[0]) + harness.tokens("0")
    harness.submit("again", prompt + turn(harness.backend.vocabulary, "and?"))
    harness.run()
    assert harness.ended("again").n_cached >= len(prompt) - 1


@pytest.mark.parametrize("changes", [{"cache_ram_mb": 0}, {"device": Device.GPU}])
def test_without_ram_for_states_and_on_a_card_they_stay_where_they_are(changes: dict[str, Any]) -> None:
    harness = Harness.fake(context_size=16_384, parallel=8, **changes)
    for number in range(8):
        harness.ask(str(number), f"{number} " + "x" * 400)
        harness.run()
    assert harness.loop.pool.n_cached > 3000


def test_a_state_that_ram_does_not_take_stays_in_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """To write it to a disk, or to lose it, would cost more than it spares the others."""
    harness = Harness.fake(context_size=16_384, parallel=8, batch_size=512)
    snapshots = harness.loop.scheduler.cache.snapshots
    monkeypatch.setattr(snapshots, "_max_bytes", 10_000)
    saved: list[int] = []
    save = harness.backend.save

    def count(slot: int) -> bytes:
        saved.append(slot)
        return save(slot)

    monkeypatch.setattr(harness.backend, "save", count)
    harness.ask("long", "y" * 4000)
    harness.run()
    for number in range(8):
        harness.ask(str(number), f"{number} " + "x" * 400)
        harness.run()
    assert harness.loop.pool.n_cached > 4000
    assert saved.count(0) == 1, "what does not fit is not saved again and again"
    n_before = len(harness.steps())
    harness.submit("again", prompt_of(harness, "y" * 4000) + harness.tokens("long") + [9])
    harness.run()
    assert harness.ended("again").n_cached > 4000
    assert sum(step.n_prefill for step in harness.steps()[n_before:]) <= 2


def prompt_of(harness: Harness, text: str) -> list[int]:
    return turn(harness.backend.vocabulary, text)
