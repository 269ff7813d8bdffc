"""``kill -9`` of the runner while a long prompt is computed: the next one continues from its last checkpoint.

Played with the fake at a twentieth of the real times, and once with the real model.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.config.engine_config import engine_config
from inference.dispatch import gpu_runner, runner_launcher
from inference.dispatch.generation_state import ActiveGeneration
from inference.engine.config import BackendKind, EngineConfig
from inference.engine.kv_cache.state_files import tags_of
from inference.queue.results import CANCELLED
from tests.inference.dispatch.process_harness import Party, party

N_TOKENS = 8000
# 32 slices, 2.5 s in all; a checkpoint is due after a quarter of a second.
PROMPT = "[[delay: 80]][[say: done]]" + "x" * N_TOKENS


@pytest.fixture(autouse=True)
def _long_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "GEMMA_CONTEXT_SIZE", 16_384)
    monkeypatch.setattr(settings, "GEMMA_CACHE_DISK_MB", 0)  # no test continues what another computed
    monkeypatch.setattr(tokenizer, "_tokenizer", None)


@pytest.fixture
def _scaled_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled() -> EngineConfig:
        return msgspec.structs.replace(engine_config(), checkpoint_secs=0.25)

    for module in (runner_launcher, gpu_runner):
        monkeypatch.setattr(module, "engine_config", scaled)


@pytest.fixture
def there(tmp_path: Path, _scaled_times: None) -> Iterator[Party]:
    with party(tmp_path) as made:
        yield made


def kill(there: Party, pid: int | None = None) -> None:
    pid = pid or there.dispatcher.runner_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    there.until(lambda: pid not in (there.dispatcher.runner_pid, there.dispatcher.gpu_pid))


def until_computed(there: Party, generation: ActiveGeneration, n_tokens: int) -> None:
    there.until(lambda: generation.prefill.n_computed >= n_tokens or generation.tokens)
    assert not generation.tokens, "the prompt was complete before the kill"


def n_prefilled(there: Party) -> int:
    return there.dispatcher.meter.report().n_prefill_tokens


def files(there: Party) -> list[Path]:
    return list((there.folder / "shm").rglob("*.move"))


def kill_twice(there: Party, generation: ActiveGeneration) -> None:
    for share in (0.4, 0.8):
        until_computed(there, generation, int(share * len(generation.prompt)))
        kill(there)
        generation.prefill.n_computed = 0


@pytest.mark.parametrize("changes", [{}, {"ephemeral": True}, {"cache_prompt": False}])
def test_two_kills_cost_half_of_a_prompt_at_most(there: Party, changes: dict[str, Any]) -> None:
    generation = there.ask(PROMPT, **changes)
    kill_twice(there, generation)
    assert there.text(generation) == "done"
    assert n_prefilled(there) <= 1.5 * len(generation.prompt)
    assert there.outcome(generation).n_cached == 0, "it had computed those tokens itself"
    assert not files(there)


def test_a_kill_before_the_first_new_checkpoint_costs_nothing_more(there: Party) -> None:
    generation = there.ask(PROMPT)
    until_computed(there, generation, 4000)
    for _ in range(2):
        kill(there)
        there.until(lambda: there.dispatcher.ready is not None)
    assert there.text(generation) == "done"
    assert n_prefilled(there) <= 1.5 * len(generation.prompt)


def test_an_innocent_prompt_beside_one_that_kills_the_runner(there: Party) -> None:
    innocent = there.ask(PROMPT)
    until_computed(there, innocent, 4000)
    culprit = there.ask("[[abort]]")
    assert there.text(innocent) == "done"
    ending = there.outcome(culprit).ending
    assert ending is not None
    assert ending.error_code == "runner_crashed"
    assert n_prefilled(there) <= 2 * len(innocent.prompt)


def test_a_kill_on_the_gpu_continues_on_the_cpu_from_there(there: Party) -> None:
    generation = there.ask(PROMPT)
    until_computed(there, generation, 1500)
    there.to_card()
    until_computed(there, generation, 5500)
    kill(there, there.dispatcher.gpu_pid)
    assert there.text(generation) == "done"
    assert n_prefilled(there) <= 1.5 * len(generation.prompt)


def test_the_end_of_a_prompt_in_progress_leaves_no_file(there: Party) -> None:
    generation = there.ask(PROMPT)
    there.until(lambda: generation.location.checkpoint_path)
    (path,) = files(there)
    assert tags_of(path) == []
    assert path.stat().st_mode & 0o077 == 0
    there.dispatcher.cancel(generation.generation_id)
    assert there.outcome(generation).ending == CANCELLED
    assert not files(there)


def test_what_a_killed_runner_was_writing_is_removed(there: Party) -> None:
    generation = there.ask(PROMPT)
    there.until(lambda: generation.location.checkpoint_path)
    folder = Path(generation.location.checkpoint_path).parent
    torn, foreign = folder / f"{there.dispatcher.runner_pid}-99.move", folder / "1-1.move"
    for path in (torn, foreign):
        path.write_bytes(b"GEMMA")
    kill(there)
    there.until(lambda: there.dispatcher.ready is not None)
    assert not torn.exists()
    assert foreign.exists(), "the runner on the other device may be writing that one"
    foreign.unlink()
    assert there.text(generation) == "done"


@pytest.mark.slow
@pytest.mark.real_model
def test_two_kills_of_the_real_model(tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"GEMMA_BACKEND": BackendKind.LLAMA, "GEMMA_MODEL_FILE": model_path}
    for name, value in values.items():
        monkeypatch.setattr(settings, name, value)
    known = tokenizer.get_tokenizer()
    text = " ".join(f"{number} geese flew over the {number + 1} hills." for number in range(2000))
    prompt = (known.encode(known.bos_text, special=True) + known.encode(text))[:N_TOKENS]
    with party(tmp_path) as there:
        generation = there.submit(prompt, max_tokens=4, ignore_eos=True)
        kill_twice(there, generation)
        there.until(lambda: generation.tokens)
        there.outcome(generation)
        assert n_prefilled(there) <= 1.5 * len(prompt)
