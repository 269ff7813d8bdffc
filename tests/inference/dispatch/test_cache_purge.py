"""A purge reaches every runner, those that start later too, before anything else does."""

from pathlib import Path

from inference.dispatch.cache_purge import PurgeOrder
from inference.dispatch.events import PurgeStates
from inference.dispatch.gpu_state import GpuState
from inference.engine.protocol.frames import Frame, Import, Purge, Purged, Submit
from tests.inference.dispatch.gpu_harness import GpuHarness
from tests.inference.dispatch.test_dispatcher import DispatchHarness, new_generation
from tests.inference.stub_runner import StubRunner


def order(bench: DispatchHarness | GpuHarness, *tags: str) -> PurgeOrder:
    made = PurgeOrder(list(tags))
    bench.do(PurgeStates(made))
    return made


def is_done(made: PurgeOrder) -> bool:
    return made.is_done_within(0)


def purges(runner: StubRunner) -> list[Purge]:
    return [frame for frame in runner.sent if isinstance(frame, Purge)]


def answer(runner: StubRunner, *, is_complete: bool = True) -> Purged:
    return Purged(purges(runner)[-1].number, 1, is_complete)


def kinds(frames: list[Frame]) -> list[type]:
    return [type(frame) for frame in frames]


def test_it_is_done_when_the_runner_says_so() -> None:
    bench = DispatchHarness()
    runner = bench.start()
    made = order(bench, "a", "b/0")
    assert [frame.tags for frame in purges(runner)] == [["a", "b/0"]]
    assert not is_done(made)
    bench.frames(answer(runner))
    assert is_done(made)


def test_a_file_that_waits_to_be_written_leaves_it_undone() -> None:
    bench = DispatchHarness()
    runner = bench.start()
    made = order(bench, "a")
    bench.frames(answer(runner, is_complete=False))
    assert not is_done(made)
    again = order(bench, "a")
    bench.frames(answer(runner))
    assert is_done(again)


def test_a_runner_that_is_being_started_begins_with_all_purges_so_far() -> None:
    bench = DispatchHarness()
    first, second = order(bench, "a"), order(bench, "b")
    bench.add(new_generation())
    runner = bench.start()
    assert kinds(runner.sent) == [Purge, Purge, Purge, Submit]
    assert [frame.tags for frame in purges(runner)] == [["a", "b"], ["a"], ["b"]]
    assert not is_done(first)
    assert not is_done(second)
    bench.frames(*[Purged(frame.number, 0, True) for frame in purges(runner)])
    assert is_done(first)
    assert is_done(second)


def test_the_next_runner_knows_what_the_former_one_was_told() -> None:
    bench = DispatchHarness()
    bench.start()
    made = order(bench, "a")
    bench.die()
    assert is_done(made), "cells and RAM went with it"
    bench.now += 60
    bench.do()
    assert [frame.tags for frame in purges(bench.start())] == [["a"]]


def test_without_purges_nothing_is_sent() -> None:
    assert kinds(list(DispatchHarness().start().sent)) == []


def test_both_runners_have_to_answer(tmp_path: Path) -> None:
    bench = GpuHarness(tmp_path)
    bench.reach(GpuState.GPU)
    made = order(bench, "a")
    bench.cpu_says(answer(bench.cpu))
    assert not is_done(made)
    bench.gpu_says(answer(bench.gpu))
    assert is_done(made)


def test_the_end_of_the_gpu_runner_answers_for_it(tmp_path: Path) -> None:
    bench = GpuHarness(tmp_path)
    bench.reach(GpuState.GPU)
    made = order(bench, "a")
    bench.cpu_says(answer(bench.cpu))
    bench.gpu_dies()
    assert is_done(made)


def test_states_copied_before_the_purge_meet_a_runner_that_refuses_them(tmp_path: Path) -> None:
    """Copies wait while the GPU's runner loads; the purge is sent to it before they are."""
    bench = GpuHarness(tmp_path)
    bench.reach(GpuState.LOADING)
    made = order(bench, "a")
    bench.cpu_says(answer(bench.cpu))
    assert not is_done(made), "the other one is on its way"
    bench.start_gpu()
    sent = kinds(bench.gpu.sent)
    assert sent[0] is Purge
    assert Import in sent
    bench.gpu_says(answer(bench.gpu))
    assert is_done(made)
