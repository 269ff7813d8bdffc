"""A sequence goes on in another runner, in the middle of its sentence, from the same numbers to the last bit.

Two loops stand for two runner processes, with files between them. On the fake and on the real model.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import Device, EngineConfig
from inference.engine.protocol.frames import (
    CacheExported,
    Export,
    ExportCache,
    Exported,
    ExportedSequence,
    Import,
    Imported,
    Submit,
)
from tests.engine.harness import Harness, RecordingBackend, fake_config, params, turn
from tests.engine.test_prefix_reuse import tokens_of
from tests.engine.test_sharing import n_prefilled, prompt

WINDOW = 48
Make = Callable[..., Harness]


@pytest.fixture(scope="module")
def second_backend(real_config: EngineConfig) -> Iterator[LlamaBackend]:
    backend = LlamaBackend(real_config, n_slots=8)
    yield backend
    backend.close()


def fake_runner(**changes: object) -> Harness:
    config = fake_config(**changes)
    backend = FakeBackend(n_cells=config.context_size, n_slots=8, batch_size=config.batch_size, window=WINDOW)
    return Harness(RecordingBackend(backend), config)


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes runners of one model; two of them exist at a time, and a third takes the first one's place."""
    if request.param == "fake":
        return fake_runner
    config: EngineConfig = request.getfixturevalue("real_config")
    backends = real_backends(request)
    return lambda **changes: emptied(next(backends), msgspec.structs.replace(config, **changes))


def real_backends(request: pytest.FixtureRequest) -> Iterator[LlamaBackend]:
    """Two processes' worth, in turn."""
    return itertools.cycle([request.getfixturevalue("real_backend"), request.getfixturevalue("second_backend")])


def emptied(backend: LlamaBackend, config: EngineConfig) -> Harness:
    for slot in range(backend.n_slots):
        backend.remove(slot)
    return Harness(RecordingBackend(backend), config)


def rows(harness: Harness) -> list[np.ndarray]:
    assert isinstance(harness.backend, RecordingBackend)
    return list(harness.backend.rows)


def last(harness: Harness, kind: type) -> object:
    frame = harness.frames[-1]
    assert isinstance(frame, kind), frame
    return frame


class Journey:
    """A sequence, and the runner that computes it."""

    def __init__(self, make: Make, folder: Path, prompt: list[int], **changes: object) -> None:
        self.make, self.folder, self.prompt, self.changes = make, folder, prompt, changes
        self.emitted: list[int] = []
        self.text = ""
        self.rows: list[np.ndarray] = []
        self.n_computed = 0
        self.given: list[ExportedSequence] = []
        self.harness = make()
        self.harness.submit("one", prompt, **changes)  # type: ignore[arg-type]

    def step(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.harness.loop.step()

    def move(self, *, settings: str = "same", spoil: Callable[[Path], object] = lambda path: None) -> None:
        """To another runner."""
        folder = self.folder / str(len(self.given))
        folder.mkdir()
        self.harness.loop.handle(Export(["one"], str(folder)))
        exported = last(self.harness, Exported)
        assert isinstance(exported, Exported)
        (given,) = exported.sequences
        assert self.harness.ends("one") == []
        self._note()
        self.given.append(given)
        if given.path:
            spoil(Path(given.path))
        self.harness = self.make()
        self.harness.loop._migrator._fingerprint = settings
        submit = Submit(
            sequence_id="one",
            prompt=self.prompt,
            params=params(**self.changes),
            emitted=list(self.emitted),
            state=given.path,
        )
        self.harness.loop.handle(submit)
        assert list(folder.iterdir()) == [], "a state is read once"

    def finish(self) -> "Journey":
        self.harness.run()
        self._note()
        self.text += self.harness.ended("one").text
        return self

    def _note(self) -> None:
        self.emitted += self.harness.tokens("one")
        self.text += "".join(each.text for each in self.harness.emissions("one"))
        self.rows += rows(self.harness)
        self.n_computed += sum(step.n_tokens for step in self.harness.steps())


def long_prompt(harness: Harness, n_tokens: int) -> list[int]:
    assert isinstance(harness.backend, RecordingBackend)
    inner = harness.backend.inner
    if isinstance(inner, LlamaBackend):
        return tokens_of(inner, n_tokens)
    return prompt(harness, "s" * (n_tokens - 14), "[[count: 40]]")


SAMPLED = {
    "temperature": 1.0,
    "seed": 7,
    "max_tokens": 14,
    "ignore_eos": True,
    "repeat_penalty": 1.2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.2,
}


def assert_the_same(moved: Journey, moves: tuple[int, ...], stayed: Journey) -> None:
    for n_steps in moves:
        moved.step(n_steps)
        moved.move()
    moved.finish()
    assert moved.emitted == stayed.emitted
    assert moved.text == stayed.text
    assert moved.n_computed == stayed.n_computed
    assert len(moved.rows) == len(stayed.rows)
    assert all(map(np.array_equal, moved.rows, stayed.rows))


@pytest.mark.parametrize("cache_prompt", [True, False])
@pytest.mark.parametrize("moves", [(1,), (2,), (9,), (6, 3, 1, 5)])
def test_a_moved_answer_is_the_same_and_nothing_is_computed_twice(
    tmp_path: Path, moves: tuple[int, ...], cache_prompt: bool
) -> None:
    """Moved while the prompt is read (one step), right after it, and often."""
    tokens = long_prompt(fake_runner(), 300)
    stayed = Journey(fake_runner, tmp_path, tokens, cache_prompt=cache_prompt, **SAMPLED).finish()
    moved = Journey(fake_runner, tmp_path, tokens, cache_prompt=cache_prompt, **SAMPLED)
    assert_the_same(moved, moves, stayed)


@pytest.mark.real_model
def test_the_same_on_the_real_model_to_the_last_bit_of_its_logits(
    request: pytest.FixtureRequest, real_config: EngineConfig, tmp_path: Path
) -> None:
    """In the middle of its prompt, three times, and without sharing. Its cells keep their places as long as all of it
    is in the window; what is longer is compared in ``test_random_model``, where every cell has its place."""
    backends = real_backends(request)

    def make() -> Harness:
        return emptied(next(backends), real_config)

    tokens = long_prompt(make(), 300)
    stayed = Journey(make, tmp_path, tokens, **SAMPLED).finish()
    for cache_prompt, moves in ((True, (1, 4, 1)), (False, (5,))):
        folder = tmp_path / str(cache_prompt)
        folder.mkdir()
        assert_the_same(Journey(make, folder, tokens, cache_prompt=cache_prompt, **SAMPLED), moves, stayed)


def test_text_that_was_held_back_moves_with_its_tokens(tmp_path: Path) -> None:
    """Half a character, half a stop string and half a label, at every place where an answer can be cut."""
    wanted = "caf\u00e9 [2] [9] STO\u00e9 rest"
    tokens = prompt(fake_runner(), "", f"[[say: {wanted}STOP unseen]]")
    changes = {"stop": ["STOP"], "highest_label": 3, "max_tokens": 60}
    for n_steps in range(2, len(wanted.encode()) + 3):
        journey = Journey(fake_runner, tmp_path / str(n_steps), tokens, **changes)
        journey.folder.mkdir()
        journey.step(n_steps)
        journey.move()
        assert journey.finish().text == "caf\u00e9 [2] STO\u00e9 rest"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def nothing(path: Path) -> None:
    """The file is as it should be."""


@pytest.mark.parametrize(
    ("settings", "spoil"), [("other", nothing), ("same", cut), ("same", empty), ("same", Path.unlink)]
)
def test_without_its_state_it_is_computed_from_its_tokens(
    tmp_path: Path, settings: str, spoil: Callable[[Path], object]
) -> None:
    tokens = long_prompt(fake_runner(), 100)
    journey = Journey(fake_runner, tmp_path, tokens, max_tokens=12, ignore_eos=True)
    journey.step(6)
    journey.move(settings=settings, spoil=spoil)
    n_before = len(journey.emitted)
    journey.finish()
    assert len(journey.emitted) == 12
    assert n_prefilled(journey.harness) == 100 + n_before
    assert journey.harness.emissions("one")[0].index == n_before + 1


def test_a_folder_that_takes_no_file_costs_the_state_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = fake_runner()
    harness.ask("one", "[[count: 9]]")
    harness.step_until_first_token("one")
    harness.loop.handle(Export(["one"], str(tmp_path / "gone")))
    exported = last(harness, Exported)
    assert isinstance(exported, Exported)
    assert (exported.sequences[0].path, exported.sequences[0].n_bytes) == ("", 0)
    assert "state not written" in caplog.text
    assert not harness.loop.step()


def test_what_has_ended_or_was_never_there_is_not_given(tmp_path: Path) -> None:
    harness = fake_runner()
    harness.ask("one", "[[count: 2]]")
    harness.run()
    harness.loop.handle(Export(["one", "two"], str(tmp_path)))
    assert last(harness, Exported).sequences == []  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_one_that_waits_for_room_moves_with_what_it_has(tmp_path: Path) -> None:
    """Sequences gave way and hold no cells; elsewhere there is room for all of them."""
    harness = fake_runner(context_size=300, parallel=3)
    for name, priority in (("batch", 2), ("one", 1), ("two", 1)):
        harness.ask(name, "[[count: 45]]", priority=priority, cache_prompt=False)
    while not harness.loop.scheduler.sequences.waiting or not harness.tokens("batch"):
        assert harness.loop.step()
    assert harness.loop.scheduler.sequences.waiting[0].swapped_state is not None
    harness.loop.handle(Export(["batch"], str(tmp_path)))
    exported = last(harness, Exported)
    assert isinstance(exported, Exported)
    emitted = harness.tokens("batch")
    there = fake_runner()
    tokens = [*prompt_of(harness, "[[count: 45]]")]
    there.loop.handle(
        Submit(
            sequence_id="batch",
            prompt=tokens,
            params=params(cache_prompt=False),
            emitted=emitted,
            state=exported.sequences[0].path,
        )
    )
    there.run()
    assert n_prefilled(there) <= 2, "its cells came along"
    expected = "".join(f"{number} " for number in range(1, 46))
    text = "".join(each.text for each in (*harness.emissions("batch"), *there.emissions("batch")))
    assert text + there.ended("batch").text == expected
    harness.run()


def prompt_of(harness: Harness, text: str) -> list[int]:
    return turn(harness.backend.vocabulary, text)


# ---- states of ended sequences ----


def carried(source: Harness, target: Harness, folder: Path, **changes: object) -> tuple[CacheExported, Imported]:
    values: dict[str, object] = {"folder": str(folder), "max_bytes": 1 << 30, "budget_ms": 10_000.0, **changes}
    source.loop.handle(ExportCache(**values))  # type: ignore[arg-type]
    exported = last(source, CacheExported)
    assert isinstance(exported, CacheExported)
    target.loop.handle(Import(exported.paths))
    imported = last(target, Imported)
    assert isinstance(imported, Imported)
    assert list(folder.iterdir()) == []
    return exported, imported


def test_a_conversation_goes_on_elsewhere_and_back_again_without_computing_anything_twice(
    make: Make, tmp_path: Path
) -> None:
    here, there = make(), make(device=Device.SIMULATED)
    history = long_prompt(here, 200)
    here.submit("first", history, max_tokens=6, ignore_eos=True)
    here.run()
    carried(here, there, tmp_path)
    history = history + here.tokens("first") + [30, 31, 32]
    there.submit("second", history, max_tokens=6, ignore_eos=True)
    there.run()
    # The last token of an answer is never computed: nothing followed it.
    assert (there.ended("second").n_cached, n_prefilled(there)) == (205, 4)
    carried(there, here, tmp_path, excludes_imported=True)
    history = history + there.tokens("second") + [33]
    before = n_prefilled(here)
    here.submit("third", history, max_tokens=2, ignore_eos=True)
    here.run()
    assert (here.ended("third").n_cached, n_prefilled(here) - before) == (len(history) - 2, 2)


def talked(harness: Harness, *names: str) -> list[list[int]]:
    """Conversations that have ended there, of 200 tokens and a little; their prompts."""
    prompts = [prompt(harness, name * 187, "[[count: 1]]") for name in names]
    for name, tokens in zip(names, prompts, strict=True):
        harness.submit(name, tokens)
        harness.run()
    return prompts


def test_the_youngest_go_first_and_the_rest_later(tmp_path: Path) -> None:
    here, there = fake_runner(), fake_runner()
    talked(here, "a", "b", "c")
    exported, imported = carried(here, there, tmp_path, max_bytes=900)
    assert (len(exported.paths), imported.n_states, exported.is_complete) == (1, 1, True)
    (held,) = there.loop.scheduler.cache.snapshots.youngest_first()
    assert held.tokens[1] == prompt(here, "c", "")[1]
    exported, imported = carried(here, there, tmp_path, is_continuation=True)
    assert exported.paths == [], "what did not fit is not tried again"
    exported, imported = carried(here, there, tmp_path, budget_ms=-1.0)
    assert (exported.paths, exported.is_complete) == ([], False)
    exported, imported = carried(here, there, tmp_path, is_continuation=True)
    assert (len(exported.paths), imported.n_states) == (3, 3)


def test_on_the_card_a_state_is_used_where_it_lies(tmp_path: Path) -> None:
    """Reading all of them first would delay new requests there; ``carried`` sees that the folder is empty."""
    here, there = fake_runner(), fake_runner(device=Device.SIMULATED)
    talked(here, "a")
    carried(here, there, tmp_path)
    (held,) = there.loop.scheduler.cache.snapshots.youngest_first()
    (kept,) = here.loop.scheduler.cache.exportable()
    assert held.state is not None
    assert type(held.state).__name__ == "memoryview"
    assert bytes(held.state) == here.loop.scheduler.cache.exported_state(kept)


def test_only_what_is_new_goes_back_when_the_rest_is_there_still(tmp_path: Path) -> None:
    here, there = fake_runner(), fake_runner()
    talked(here, "a", "b")
    carried(here, there, tmp_path)
    talked(there, "c")
    assert len(carried(there, here, tmp_path, excludes_imported=True)[0].paths) == 1
    assert len(carried(there, fake_runner(), tmp_path)[0].paths) == 3


def test_a_sequence_that_leaves_is_carried_once(tmp_path: Path) -> None:
    """Its cells stay here, as the youngest of the idle: the receiver has them already."""
    here = fake_runner()
    talked(here, "a")
    here.submit("live", prompt(here, "l" * 100, "[[count: 40]]"))
    for _ in range(8):
        here.loop.step()
    for folder in (ways := [tmp_path / "live", tmp_path / "copies"]):
        folder.mkdir()
    here.loop.handle(Export(["live"], str(ways[0])))
    exported = last(here, Exported)
    assert isinstance(exported, Exported)
    assert exported.sequences[0].path
    assert len(carried(here, fake_runner(), ways[1])[0].paths) == 1
    here.loop.handle(Export([], str(ways[0])))
    assert len(carried(here, fake_runner(), ways[1])[0].paths) == 2, "whoever comes next has none of it"


def test_what_came_from_elsewhere_is_not_remembered_for_ever(tmp_path: Path) -> None:
    here = fake_runner(cache_ram_mb=1)
    for number in range(30):
        there = fake_runner()
        talked(there, f"{number:02d}")
        carried(there, here, tmp_path)
        if number == 20:
            here.loop.scheduler.cache.snapshots._max_bytes = 1
    assert len(here.loop._migrator._imported) <= 1 + len(here.loop.scheduler.cache.exportable())


def test_what_nobody_keeps_stays_in_memory_elsewhere_too(tmp_path: Path) -> None:
    here, there = fake_runner(), fake_runner()
    here.submit("a", prompt(here, "a" * 200, "[[count: 1]]"), ephemeral=True)
    here.run()
    carried(here, there, tmp_path)
    (held,) = there.loop.scheduler.cache.snapshots.youngest_first()
    assert held.ephemeral


def test_states_of_other_settings_are_dropped(tmp_path: Path) -> None:
    here, there = fake_runner(), fake_runner()
    there.loop._migrator._fingerprint = "other"
    talked(here, "a")
    assert carried(here, there, tmp_path)[1].n_states == 0


def test_a_runner_that_cannot_tell_what_its_states_are_gives_none(tmp_path: Path) -> None:
    here = fake_runner()
    here.loop._migrator._writer._fingerprint = ""
    talked(here, "a")
    assert carried(here, fake_runner(), tmp_path)[0].paths == []
