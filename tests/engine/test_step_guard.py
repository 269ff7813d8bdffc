"""Progress of the loop as seen by another thread, and steps that end early: their reasons and their results."""

import math
import threading
import time
from collections.abc import Iterator

import pytest

from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.backends.llama_step_watch import LlamaStepWatch, watch_steps
from inference.engine.backends.step_watch import CountedStepWatch, NoStepWatch
from inference.engine.config import EngineConfig
from inference.engine.core.step_cost import StepCost
from inference.engine.core.step_guard import (
    OTHER_WORK_SECS,
    SHORTEST_ALLOWANCE_SECS,
    UNMEASURED_STEP_SECS,
    StepGuard,
    allowance_secs,
)
from inference.engine.protocol.frames import Cancel, Purge, Stop
from tests.clock import Clock
from tests.engine.harness import Harness, turn

# ---- reasons for an early end ----


@pytest.fixture
def watch() -> CountedStepWatch:
    return CountedStepWatch()


@pytest.fixture
def guard(watch: CountedStepWatch) -> StepGuard:
    return StepGuard(watch)


def test_a_cancel_ends_a_step_with_nothing_else_in_it(guard: StepGuard, watch: CountedStepWatch) -> None:
    with guard.step(["a"], 1.0):
        seen = []
        for frame in (Purge(1, ["a"]), Cancel("b"), Cancel("a")):
            guard.frame_arrived(frame)
            seen.append(watch.is_aborted)
    assert seen == [False, False, True]
    assert not watch.is_aborted, "the next step is another one"


def test_a_cancel_beside_others_waits_until_all_are_cancelled(guard: StepGuard, watch: CountedStepWatch) -> None:
    with guard.step(["a", "b", "c"], 1.0):
        for name in "ab":
            guard.frame_arrived(Cancel(name))
            assert not watch.is_aborted
        guard.frame_arrived(Cancel("c"))
        assert watch.is_aborted


def test_a_cancel_that_comes_between_the_frames_and_the_step_is_not_missed(
    guard: StepGuard, watch: CountedStepWatch
) -> None:
    guard.frame_arrived(Cancel("a"))
    with guard.step(["a"], 1.0):
        assert watch.is_aborted
    guard.cancel_handled("a")
    with guard.step(["a"], 1.0):
        assert not watch.is_aborted


def test_a_stop_ends_any_step(guard: StepGuard, watch: CountedStepWatch) -> None:
    with guard.step(["a", "b"], 1.0):
        guard.frame_arrived(Stop(1.0))
        assert watch.is_aborted


def test_a_step_that_fails_leaves_no_request_behind(guard: StepGuard, watch: CountedStepWatch) -> None:
    def fail() -> None:
        with guard.step(["a"], 1.0):
            guard.frame_arrived(Cancel("a"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not watch.is_aborted


# ---- progress ----


def test_a_counted_step_shows_progress_by_its_count_alone() -> None:
    clock, watch = Clock(), CountedStepWatch()
    guard = StepGuard(watch, clock)
    with guard.step(["a"], 1.0):
        assert not guard.is_progressing()
        for _ in range(5):
            clock.now += 3600
            watch.n_done += 1
            assert guard.is_progressing()
            assert not guard.is_progressing()


def test_a_step_that_shows_nothing_has_ten_times_what_it_should_take() -> None:
    clock = Clock()
    guard = StepGuard(NoStepWatch(), clock)
    with guard.step(["a"], 15_000.0):
        clock.now += 149
        assert guard.is_progressing()
        clock.now += 2
        assert not guard.is_progressing()
    assert guard.is_progressing(), "samples are drawn"


@pytest.mark.parametrize(
    ("expected_ms", "secs"),
    [(None, UNMEASURED_STEP_SECS), (0.0, SHORTEST_ALLOWANCE_SECS), (30.0, SHORTEST_ALLOWANCE_SECS), (60_000.0, 600.0)],
)
def test_allowances(expected_ms: float | None, secs: float) -> None:
    assert allowance_secs(expected_ms) == secs


def test_other_work_has_its_time_and_an_idle_runner_none() -> None:
    clock = Clock()
    guard = StepGuard(CountedStepWatch(), clock)
    guard.begin_work()
    clock.now += OTHER_WORK_SECS - 1
    assert guard.is_progressing()
    clock.now += 2
    assert not guard.is_progressing()
    guard.begin_work()
    guard.begin_wait()
    assert not guard.is_progressing()


def test_a_step_is_expected_to_take_what_such_steps_took() -> None:
    cost = StepCost(200.0)
    assert cost.expected_ms(1, 0) is None
    assert cost.expected_ms(0, 256) is None
    cost.observe(1, 0, 100.0)
    assert cost.expected_ms(1, 0) == 100.0
    assert cost.expected_ms(1, 256) is None
    cost.observe(0, 256, 4000.0)
    assert cost.expected_ms(0, 512) == pytest.approx(8000.0)
    assert cost.expected_ms(1, 256) == pytest.approx(4100.0)


# ---- steps that end early, in the fake and in llama.cpp ----


@pytest.fixture(params=["fake", "fake with a window", pytest.param("llama", marks=pytest.mark.real_model)])
def slow(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Steps long enough to be ended in their middle; llama.cpp computes each slice in passes of 32 tokens."""
    if request.param != "llama":
        yield Harness.fake(batch_size=256, window=64 if "window" in request.param else 0)
        return
    config: EngineConfig = request.getfixturevalue("real_config")
    backend = LlamaBackend(_with_passes(config), n_slots=4)
    if not backend.watch.counts:
        pytest.skip("the installed llama-cpp-python was built without our step watch")
    yield Harness(backend, config)
    backend.close()


def _with_passes(config: EngineConfig) -> EngineConfig:
    return EngineConfig(
        model_path=config.model_path,
        context_size=2048,
        batch_size=256,
        ubatch_size=32,
        threads=1,
        flash_attention=config.flash_attention,
    )


def long_prompt(harness: Harness) -> list[int]:
    text = "[[delay: 150]]" + " ".join(f"{number}, and then" for number in range(150))
    return turn(harness.backend.vocabulary, text)[:700]


def cancel_in_step(harness: Harness, sequence_id: str, *, after_n_done: int) -> float:
    """Run one step and cancel a sequence in its middle; the secs from the cancel to the end of the step."""
    watch, cancelled_at = harness.backend.watch, math.inf
    n_before, is_over = watch.n_done, threading.Event()

    def cancel() -> None:
        nonlocal cancelled_at
        while watch.n_done < n_before + after_n_done:
            if is_over.wait(0.001):
                return
        cancelled_at = time.monotonic()
        harness.loop.guard.frame_arrived(Cancel(sequence_id))

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        assert harness.loop.step()
        ended_at = time.monotonic()
    finally:
        is_over.set()
        thread.join()
    assert cancelled_at < ended_at, "the step ended before it was cancelled"
    return ended_at - cancelled_at


def greedy_tokens(harness: Harness, prompt: list[int], name: str) -> list[int]:
    harness.submit(name, prompt, max_tokens=8, ignore_eos=True, cache_prompt=False)
    harness.run()
    return harness.tokens(name)


@pytest.mark.parametrize("n_steps_before", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_that_was_ended_early_leaves_a_cache_that_goes_on_exactly(slow: Harness, n_steps_before: int) -> None:
    prompt = long_prompt(slow)
    expected = greedy_tokens(slow, prompt, "expected")
    slow.submit("a", prompt, max_tokens=8, ignore_eos=True, cache_prompt=False)
    for _ in range(n_steps_before):
        slow.loop.step()
    is_llama = isinstance(slow.backend, LlamaBackend)
    took = cancel_in_step(slow, "a", after_n_done=1500 if is_llama else 1)
    sequence = slow.loop.scheduler.sequences.find("a")
    assert sequence is not None
    assert sequence.slot is not None
    assert sequence.n_computed == slow.backend.n_positions(sequence.slot) == slow.loop.pool.used[sequence.slot]
    assert n_steps_before * 256 <= sequence.n_computed < min((n_steps_before + 1) * 256, len(prompt))
    assert took < 2.0 or is_llama  # slack for a busy machine; the positions above show that the step was ended
    # Continues from the remaining state, with the same tokens.
    slow.loop.guard.cancel_handled("a")
    slow.run()
    assert slow.tokens("a") == expected
    slow.loop.scheduler.check()


def test_an_answer_alone_in_its_step_is_cancelled_in_its_middle(slow: Harness) -> None:
    slow.submit("a", long_prompt(slow)[:300], max_tokens=50, ignore_eos=True)
    slow.step_until_first_token("a")
    n_tokens = len(slow.tokens("a"))
    cancel_in_step(slow, "a", after_n_done=3)
    assert len(slow.tokens("a")) == n_tokens
    slow.cancel("a")
    slow.run()
    assert slow.ended("a").reason == "cancelled"
    slow.loop.scheduler.check()


@pytest.mark.parametrize("slow", ["fake"], indirect=True)
def test_a_batch_of_several_ends_early_when_all_are_cancelled(slow: Harness) -> None:
    prompt = long_prompt(slow)[:60]
    for name in "ab":
        slow.submit(name, prompt[:50] + [ord(name)] * 10)
    slow.loop.guard.frame_arrived(Cancel("b"))
    cancel_in_step(slow, "a", after_n_done=3)
    for name in "ab":
        slow.cancel(name)
        assert slow.ended(name).n_kept == 0
    assert not slow.loop.step()


@pytest.mark.real_model
def test_llama_counts_and_the_count_costs_nothing_that_can_be_measured(real_backend: LlamaBackend) -> None:
    watch = real_backend.watch
    if not isinstance(watch, LlamaStepWatch):
        pytest.skip("the installed llama-cpp-python was built without our step watch")
    harness = Harness(real_backend, EngineConfig(model_path=real_backend._model.path, batch_size=256, threads=1))
    n_before = watch.n_done
    harness.submit("a", long_prompt(harness)[:20], max_tokens=1)
    harness.run()
    assert watch.n_done - n_before > 100


@pytest.mark.real_model
def test_a_build_without_the_symbol_and_a_gpu_are_judged_by_time(
    real_backend: LlamaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(watch_steps(real_backend._context, on_cpu=False), NoStepWatch)
    monkeypatch.setattr("inference.engine.backends.llama_step_watch.SYMBOL", "gemma_no_such_symbol")
    watch = watch_steps(real_backend._context, on_cpu=True)
    assert isinstance(watch, NoStepWatch)
    guard = StepGuard(watch)
    with guard.step(["a"], 100.0):
        guard.frame_arrived(Cancel("a"))  # the step runs to its end
        assert guard.is_progressing()
