"""The real model moves between two processes, one of them in place of a GPU: same text, and nothing is computed again.

Flash attention off, one answer at a time: then a moved answer is the same to the last bit, as long as it is within the
window (``tests/engine/test_random_model.py`` looks beyond it).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from inference.config import tokenizer
from inference.dispatch.generation_state import ActiveGeneration
from inference.dispatch.gpu_state import GpuState
from inference.engine.config import BackendKind, FlashAttention
from inference.engine.grammar.sources import from_json_schema
from inference.queue.results import device_runs
from tests.inference.dispatch.process_harness import Party, party

pytestmark = pytest.mark.real_model

QUESTION = "User: My neighbour has three cats, and every morning one of them\nAssistant:"
LONG = " ".join(f"{number} geese flew over the {number + 1} hills." for number in range(110))
# Longer than a load takes on a machine with a fast CPU.
SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 11, "repeat_penalty": 1.1, "max_tokens": 240, "ignore_eos": True}


@pytest.fixture(autouse=True)
def _real_model(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    values = {
        "GEMMA_BACKEND": BackendKind.LLAMA,
        "GEMMA_MODEL_FILE": model_path,
        "GEMMA_CONTEXT_SIZE": 4096,
        "GEMMA_THREADS": 1,
        "GEMMA_FLASH_ATTENTION": FlashAttention.OFF,
        "GEMMA_CACHE_DISK_MB": 0,
        "GEMMA_DRAFT_MAX": 0,
    }
    for name, value in values.items():
        monkeypatch.setattr(settings, name, value)
    monkeypatch.setattr(tokenizer, "_tokenizer", None)


def encoded(text: str) -> list[int]:
    known = tokenizer.get_tokenizer()
    return known.encode(known.bos_text, special=True) + known.encode(text)


def n_computed(there: Party) -> int:
    report = there.dispatcher.meter.report()
    return report.n_prefill_tokens + report.n_decode_tokens


def ids(generation: ActiveGeneration) -> list[int]:
    return [token.token for token in generation.tokens]


@pytest.mark.slow
def test_a_hand_over_there_and_back_changes_no_token_and_computes_none_twice(tmp_path: Path) -> None:
    with party(tmp_path) as there:
        prompt = encoded(QUESTION)
        stayed = there.submit(prompt, cache_prompt=False, **SAMPLED)
        there.outcome(stayed)
        before = n_computed(there)
        moved = there.submit(prompt, cache_prompt=False, **SAMPLED)
        there.until(lambda: len(moved.tokens) >= 5)
        there.to_card()
        n_there = len(moved.tokens)
        there.until(lambda: len(moved.tokens) >= n_there + 8)
        there.lease_client.recall()
        there.outcome(moved)
        assert there.text(moved) == there.text(stayed)
        assert ids(moved) == ids(stayed)
        assert [run["device"] for run in device_runs(moved.tokens)][:2] == ["cpu", "gpu"]
        assert n_computed(there) - before == before, "as many as without a move"
        there.until(lambda: there.lease_client.lease is None)
        assert max(record.moved_bytes for record in there.records) > 100_000


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_structured_answer_moves_there_and_back(tmp_path: Path) -> None:
    names = {"type": "array", "items": {"enum": ["Tom", "Felix", "Mia"]}, "minItems": 60, "maxItems": 60}
    schema = {"type": "object", "properties": {"cats": names}, "required": ["cats"], "additionalProperties": False}
    grammar = from_json_schema(schema)
    options: dict[str, Any] = {"grammar": grammar, "temperature": 1.0, "seed": 3, "cache_prompt": False}
    with party(tmp_path) as there:
        stayed = there.submit(encoded(QUESTION), **options)
        text = there.text(stayed)
        assert len(json.loads(text)["cats"]) == 60
        moved = there.submit(encoded(QUESTION), **options)
        there.until(lambda: len(moved.tokens) >= 5)
        there.to_card()
        n_there = len(moved.tokens)
        there.until(lambda: len(moved.tokens) >= n_there + 8 or moved.wait(0) is not None)
        there.lease_client.recall()
        assert there.text(moved) == text
        assert len(device_runs(moved.tokens)) >= 2
        there.until(lambda: there.lease_client.lease is None)


def test_a_long_chat_goes_on_after_a_move_without_being_read_again(tmp_path: Path) -> None:
    """Longer than the window; on the GPU, and again after the way back."""
    with party(tmp_path) as there:
        prompt = encoded(LONG)
        assert len(prompt) > 1000
        first = there.submit(prompt, max_tokens=3)
        there.outcome(first)
        there.dispatcher.hold("s", 600.0)
        for move in (there.to_card, there.to_cpu):
            move()
            prompt = [*prompt, *ids(first), *encoded(" And then?")[1:]]
            n_known = len(prompt) - len(encoded(" And then?"))
            first = there.submit(prompt, max_tokens=3)
            assert there.outcome(first).n_cached >= n_known - 1
            assert there.text(first) is not None
        assert there.at(GpuState.CPU, GpuState.WAITING)
        assert {token.device for token in first.tokens} == {"cpu"}
