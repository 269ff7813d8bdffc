"""Labels of real generations: a runner that dies within a bracket, a stop string, an end within one."""

import os
import signal

import pytest
import redis

from inference.config.tokenizer import get_tokenizer
from inference.engine.params import SamplingParams, SequenceParams
from inference.models import FinishReason, Generation
from tests.inference.making import queued
from tests.inference.worker.test_worker import assert_one_end, run_to_end
from tests.inference.working import eventually, has_tokens, is_ended, running_worker

pytestmark = pytest.mark.django_db(transaction=True)

SAID = "As Tom [1, 7] and Ana [8] said [2][9]."
SHOWN = "As Tom [1] and Ana said [2]."


def new_generation(say: str, **params: object) -> Generation:
    checked = SequenceParams(sampling=SamplingParams(seed=1, temperature=0.0), highest_label=2, **params)  # type: ignore[arg-type]
    return queued(say=say, params=checked)


def test_unknown_labels_are_in_no_text(store: "redis.Redis[bytes]") -> None:
    generation = new_generation(f"[[say: {SAID}]]")
    run_to_end(generation)
    assert (generation.text, generation.labels) == (SHOWN, [1, 2])
    assert get_tokenizer().decode(generation.output_ids) == SAID
    assert_one_end(store, generation)


def test_a_runner_that_dies_within_a_bracket_changes_nothing(store: "redis.Redis[bytes]") -> None:
    generation = new_generation(f"[[delay: 20]] [[say: {SAID}]]")
    within = SAID.index("8]")
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, within, worker))
        assert worker.dispatcher.runner_pid is not None
        os.kill(worker.dispatcher.runner_pid, signal.SIGKILL)
        assert eventually(lambda: is_ended(generation))
        notifier.join()
    assert (generation.text, generation.labels) == (SHOWN, [1, 2])
    assert_one_end(store, generation)


def test_an_answer_cut_within_a_bracket(store: "redis.Redis[bytes]") -> None:
    generation = new_generation(f"[[say: {SAID}]]", max_tokens=SAID.index(" and"))
    cut = new_generation(f"[[say: {SAID}]]", max_tokens=SAID.index(", 7]"))
    unknown = new_generation("[[say: so [7]]]")
    run_to_end(generation, cut, unknown)
    assert (generation.text, generation.finish_reason) == ("As Tom [1]", FinishReason.LENGTH)
    assert (cut.text, cut.labels) == ("As Tom [1", [])
    assert (unknown.text, unknown.labels) == ("so", [])
    for ended in (generation, cut, unknown):
        assert_one_end(store, ended)


def test_a_stop_string_behind_a_label(store: "redis.Redis[bytes]") -> None:
    generation = new_generation(f"[[say: {SAID}]]", stop=["] and"])
    run_to_end(generation)
    assert (generation.text, generation.labels) == ("As Tom", [])
    assert get_tokenizer().decode(generation.output_ids) == "As Tom [1, 7"
    assert_one_end(store, generation)
