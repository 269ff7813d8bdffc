"""Answers under a grammar across hand-overs and deaths of runner processes (fake model, simulated card).

The scripted text breaks the grammar nearly everywhere, so that masks and seed alone make the answer: it is valid, and
equals the answer without a move, only if each runner restores the position in the grammar.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.grammar.sources import from_json_schema
from tests.inference.dispatch.process_harness import Party, party, random_hand_overs

N_STREAMS = 4
N_HAND_OVERS = int(os.environ.get("FAULT_HAND_OVERS", "4"))
N_KILLS = int(os.environ.get("FAULT_ROUNDS", "2"))
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"enum": ["Ann", "Bob", "Ada"]},
            "age": {"type": "integer", "minimum": 3, "maximum": 42},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "minItems": 12,
    "maxItems": 12,
}


@pytest.fixture(autouse=True, params=[0, pytest.param(7, marks=pytest.mark.slow)], ids=["no drafts", "drafts"])
def draft_max(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Drafts are the text that the grammar forces, such as the names of an object."""
    value: int = request.param
    monkeypatch.setattr(settings, "GEMMA_DRAFT_MAX", value)
    monkeypatch.setattr(settings, "GEMMA_PARALLEL", N_STREAMS)
    monkeypatch.setattr(tokenizer, "_tokenizer", None)
    return value


def asked(there: Party, seed: int, *, delay_ms: int = 3) -> ActiveGeneration:
    text = f"[[delay: {delay_ms}]] [[count: 900]]"
    return there.ask(text, grammar=from_json_schema(SCHEMA), temperature=1.5, seed=seed, cache_prompt=False)


def check(text: str) -> None:
    jsonschema.validate(json.loads(text), SCHEMA)


def has_drafted(there: Party) -> bool:
    return there.dispatcher.meter.report().n_right_tokens > 0


def warm_up(there: Party, draft_max: int) -> None:
    """Leave the runner idle until it has measured its batches, before which it drafts nothing."""
    while draft_max and not has_drafted(there):
        time.sleep(0.2)
        check(there.text(asked(there, 99, delay_ms=0)))


def undisturbed(there: Party, seeds: range) -> list[str]:
    return [there.text(asked(there, seed, delay_ms=0)) for seed in seeds]


@pytest.mark.timeout(120 + 4 * N_HAND_OVERS)
def test_hand_overs(draft_max: int, tmp_path: Path) -> None:
    seeds = range(N_STREAMS)
    for name in ("undisturbed", "moved"):
        (tmp_path / name).mkdir()
    with party(tmp_path / "undisturbed") as there:
        expected = undisturbed(there, seeds)
    with party(tmp_path / "moved") as there:
        warm_up(there, draft_max)
        n_done = n_reached = 0
        while n_done < N_HAND_OVERS:
            generations = [asked(there, seed) for seed in seeds]
            is_done = all_ended(generations)
            n_granted, n_there = random_hand_overs(there, N_HAND_OVERS - n_done, seed=n_done, is_done=is_done)
            there.until(is_done)
            n_done, n_reached = n_done + n_granted, n_reached + n_there
            texts = [there.text(generation) for generation in generations]
            for text in texts:
                check(text)
            assert texts == expected
        assert n_reached > 0
        assert has_drafted(there) is (draft_max > 0)


def all_ended(generations: list[ActiveGeneration]) -> Callable[[], bool]:
    return lambda: all(generation.wait(0) is not None for generation in generations)


def has_tokens(generation: ActiveGeneration, n_tokens: int) -> Callable[[], bool]:
    return lambda: len(generation.tokens) > n_tokens


@pytest.mark.timeout(120 + 10 * N_KILLS)
def test_kill_9_of_the_runner(draft_max: int, tmp_path: Path) -> None:
    with party(tmp_path) as there:
        warm_up(there, draft_max)
        [expected] = undisturbed(there, range(7, 8))
        for round_number in range(N_KILLS):
            generation = asked(there, 7)
            there.until(has_tokens(generation, 5 + 9 * round_number % 90))
            there.note_pids()
            pid = there.dispatcher.runner_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            text = there.text(generation)
            check(text)
            assert text == expected
        assert has_drafted(there) is (draft_max > 0)
