"""Runner processes in steps that take longer than the patience with a silent one: only silence ends a process.

All times are a tenth or less of the real ones: a step of 15 s beside a patience of 20 s with reports every second is
played as 3 s beside 2 s with reports every 0.1 s.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.config.engine_config import engine_config
from inference.dispatch import event_loop, gpu_runner, runner_launcher, runner_slot
from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.config import EngineConfig
from inference.enums import FinishReason
from inference.queue.results import CANCELLED, TIMED_OUT
from tests.inference.dispatch.process_harness import Party, party

PATIENCE_SECS = 2.0
LONG_STEP = "[[delay: 3000]]"


@pytest.fixture(autouse=True)
def _scaled_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "GEMMA_PARALLEL", 8)
    monkeypatch.setattr(tokenizer, "_tokenizer", None)
    monkeypatch.setattr(runner_slot, "SILENCE_PATIENCE_SECS", PATIENCE_SECS)
    monkeypatch.setattr(event_loop, "STOP_PATIENCE_SECS", PATIENCE_SECS / 2)

    def scaled() -> EngineConfig:
        return msgspec.structs.replace(engine_config(), progress_secs=0.1)

    for module in (runner_launcher, gpu_runner):
        monkeypatch.setattr(module, "engine_config", scaled)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Party]:
    with party(tmp_path) as made:
        yield made


def in_long_step(there: Party, *generations: ActiveGeneration) -> None:
    """Wait until the runner has begun to compute all of them, and is in a step."""
    there.until(lambda: all(generation.tokens for generation in generations))


@pytest.mark.slow
def test_five_cancels_beside_an_answer_leave_the_runner_and_the_answer(there: Party) -> None:
    pid = there.dispatcher.runner_pid
    other = there.ask(f"{LONG_STEP}[[say: ab]]")
    cancelled = [there.ask(f"[[count: {n}]]") for n in range(900, 905)]
    in_long_step(there, other, *cancelled)
    for generation in cancelled:
        there.dispatcher.cancel(generation.generation_id)
        time.sleep(0.2)
    assert there.text(other) == "ab"
    assert [there.outcome(generation).ending for generation in cancelled] == [CANCELLED] * 5
    assert there.dispatcher.runner_pid == pid


def test_a_deadline_within_a_long_step_ends_one_and_leaves_the_others(there: Party) -> None:
    pid = there.dispatcher.runner_pid
    other = there.ask(f"{LONG_STEP}[[say: ab]]")
    late = ActiveGeneration(uuid4(), 1, [*other.prompt, 200], other.params, 1, deadline=time.monotonic() + 1.0)
    there.dispatcher.add(late)
    assert there.outcome(late).ending == TIMED_OUT
    assert there.text(other) == "ab"
    assert there.dispatcher.runner_pid == pid


@pytest.mark.slow
def test_a_lost_claim_within_a_long_step(there: Party) -> None:
    """The row was deleted, or taken over by another worker."""
    pid = there.dispatcher.runner_pid
    other, lost = there.ask(f"{LONG_STEP}[[say: ab]]"), there.ask("[[count: 900]]")
    in_long_step(there, other, lost)
    there.dispatcher.drop(lost.generation_id, lost.epoch)
    assert there.text(other) == "ab"
    assert there.dispatcher.runner_pid == pid


def test_the_gpu_is_granted_within_a_long_step(there: Party) -> None:
    pid = there.dispatcher.runner_pid
    generation = there.ask(f"{LONG_STEP}[[say: ab]]")
    in_long_step(there, generation)
    there.to_card()
    assert there.text(generation) == "ab"
    assert there.dispatcher.runner_pid == pid
    assert generation.deaths.total == 0


def test_the_cancel_of_a_lone_long_step_takes_effect_at_once(there: Party) -> None:
    pid = there.dispatcher.runner_pid
    generation = there.ask("[[delay: 60000]]" + "x" * 2000)
    time.sleep(0.5)
    began = time.monotonic()
    there.dispatcher.cancel(generation.generation_id)
    assert there.outcome(generation).ending == CANCELLED
    assert time.monotonic() - began < 5.0
    again = there.ask("[[say: next]]")
    assert there.text(again) == "next"
    assert there.dispatcher.runner_pid == pid


def test_the_end_of_the_worker_ends_a_long_step(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        there.ask("[[delay: 60000]]" + "x" * 2000)
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 8.0


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_step_that_hangs_is_ended_in_bounded_time(there: Party, *, is_cancelled: bool) -> None:
    pid = there.dispatcher.runner_pid
    hung = there.ask("[[hang]]")
    other = there.ask("[[say: later]]")
    time.sleep(0.3)
    there.dispatcher.cancel(hung.generation_id)
    if not is_cancelled:
        hung = there.ask("[[hang]]")
    began = time.monotonic()
    there.until(lambda: there.dispatcher.runner_pid not in (pid, None))
    assert time.monotonic() - began < PATIENCE_SECS + 20.0  # with the start of the next process
    there.dispatcher.cancel(hung.generation_id)
    assert there.outcome(hung).ending == CANCELLED
    assert there.text(other) == "later"


def test_a_suspended_runner_is_replaced(there: Party) -> None:
    pid = there.dispatcher.runner_pid
    assert pid is not None
    generation = there.ask("[[delay: 20]][[count: 60]]")
    there.until(lambda: len(generation.tokens) > 3)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    there.until(lambda: there.dispatcher.runner_pid not in (pid, None))
    assert PATIENCE_SECS * 0.8 < time.monotonic() - began < PATIENCE_SECS + 20.0
    assert there.text(generation) == "".join(f"{number} " for number in range(1, 61))
    ending = there.outcome(generation).ending
    assert ending is not None
    assert ending.finish_reason is FinishReason.STOP
