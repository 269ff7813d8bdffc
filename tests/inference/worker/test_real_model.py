"""The whole room on the real model: an answer, a stop in its middle, the rest from another worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.test import override_settings

from inference.config import tokenizer
from inference.config.tokenizer import get_tokenizer
from inference.engine.config import BackendKind
from inference.engine.params import SamplingParams, SequenceParams
from inference.models import FinishReason, Generation, Status
from tests.inference.making import queued
from tests.inference.worker.test_worker import assert_one_end
from tests.inference.working import eventually, has_tokens, running_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_model]

N_TOKENS = 16


@pytest.fixture(autouse=True)
def _real_model(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tokenizer, "_tokenizer", None)
    with override_settings(
        GEMMA_BACKEND=BackendKind.LLAMA,
        GEMMA_MODEL_FILE=model_path,
        GEMMA_CONTEXT_SIZE=2048,
        GEMMA_THREADS=1,
    ):
        yield


def new_generation(max_tokens: int = N_TOKENS) -> Generation:
    params = SequenceParams(sampling=SamplingParams(seed=3, temperature=0.7), max_tokens=max_tokens, ignore_eos=True)
    prompt = get_tokenizer().encode(get_tokenizer().bos_text, special=True) + get_tokenizer().encode(
        "The river Danube flows through"
    )
    return queued(prompt=prompt, params=params)


def test_an_answer_survives_the_worker_that_began_it(store: "redis.Redis[bytes]") -> None:
    generation = new_generation()
    with running_worker() as (worker, notifier):
        notifier.notify()
        assert eventually(has_tokens(generation, 5, worker), secs=60)
        worker.stop(0.0)
        notifier.join()
    generation.refresh_from_db()
    assert generation.status == Status.QUEUED
    with running_worker() as (_, notifier):
        notifier.notify()
        notifier.join()
    generation.refresh_from_db()
    assert (generation.status, generation.finish_reason) == (Status.COMPLETE, FinishReason.LENGTH)
    assert generation.n_completion_tokens == N_TOKENS
    assert get_tokenizer().decode(generation.output_ids) == generation.text
    assert generation.timings["decode"] > 0
    assert_one_end(store, generation)
