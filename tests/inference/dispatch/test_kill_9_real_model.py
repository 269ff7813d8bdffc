"""``kill -9`` of the runner in the middle of four answers of the real model: all four complete, with the same text.

How "the same" is compared: greedy, against the same four answered without a death. After a death prompt and tokens are
computed anew in other batches, and there the kernels round differently; so the tokens are equal up to the first
difference, and there the model, asked again, holds both tokens within ``near_ties.MAX_MARGIN`` of its best.
"""

import os
import signal
from pathlib import Path

import pytest
import redis

from inference.config.tokenizer import get_tokenizer
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig, FlashAttention
from inference.engine.params import SamplingParams, SequenceParams
from inference.models import Generation, Status
from tests.engine.near_ties import assert_same_up_to_rounding
from tests.inference.making import queued
from tests.inference.worker.test_real_model import _real_model  # noqa: F401  a fixture
from tests.inference.worker.test_worker import assert_one_end
from tests.inference.working import eventually, has_tokens, running_worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.real_model]

N_TOKENS = 24
# With much to say: behind an end that is forbidden the model is sure of nothing, and rounding decides.
BEGINNINGS = (
    "My neighbour has three cats, and every morning",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,",
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, Monday, Tuesday,",
    "The soup is hot. The bread is warm. The soup is hot. The bread is warm.",
)
PARAMS = SequenceParams(
    sampling=SamplingParams(seed=1, temperature=0.0), max_tokens=N_TOKENS, ignore_eos=True, cache_prompt=False
)


def prompts() -> list[list[int]]:
    tokenizer = get_tokenizer()
    start = tokenizer.encode(tokenizer.bos_text, special=True)
    return [start + tokenizer.encode(text) for text in BEGINNINGS]


def answered(*, kill: bool) -> list[Generation]:
    """All four at once; with ``kill`` the runner dies when each of them has a quarter of its tokens."""
    generations = [queued(prompt=prompt, params=PARAMS) for prompt in prompts()]
    with running_worker() as (worker, notifier):
        notifier.notify(len(generations))
        if kill:
            for generation in generations:
                assert eventually(has_tokens(generation, N_TOKENS // 4, worker), secs=60)
            first = worker.dispatcher.runner_pid
            assert first is not None
            os.kill(first, signal.SIGKILL)
        notifier.join()
        assert not kill or worker.dispatcher.runner_pid not in (None, first)
    for generation in generations:
        generation.refresh_from_db()
    return generations


@pytest.mark.usefixtures("_real_model")
def test_four_answers_survive_the_death_of_their_runner(store: "redis.Redis[bytes]", model_path: Path) -> None:
    expected, got = answered(kill=False), answered(kill=True)
    for generation in got:
        assert (generation.status, generation.n_completion_tokens) == (Status.COMPLETE, N_TOKENS)
        assert get_tokenizer().decode(generation.output_ids) == generation.text
        assert_one_end(store, generation)
    config = EngineConfig(model_path=model_path, context_size=256, threads=1, flash_attention=FlashAttention.AUTO)
    backend = LlamaBackend(config, n_slots=1)
    # Not the rows' prompts: those are dropped at the end.
    for prompt, one, other in zip(prompts(), got, expected, strict=True):
        n_equal = assert_same_up_to_rounding(backend, prompt, one.output_ids, other.output_ids)
        assert n_equal >= N_TOKENS // 4, "what was said before the death is never changed"
    backend.close()
