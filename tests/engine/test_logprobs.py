"""Log-probabilities: the exact log-softmax of the model's own logits, on request, from loop to client."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inference.engine.backends.fake_backend import CERTAIN
from inference.engine.config import EngineConfig
from inference.engine.core import output_processor
from inference.engine.protocol.frames import Emission, Step, Submit, decode_from_runner, encode
from inference.engine.sampling.logprob_records import MAX_ALTERNATIVES, TokenLogprobs
from inference.engine.sampling.logprobs import token_logprobs
from tests.engine.harness import Harness, RecordingBackend, fake_config, params
from tests.engine.test_engine_loop import plain
from tests.engine.test_runner import Watched


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The definition, in double precision."""
    exact = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = exact - math.log(math.fsum(np.exp(exact)))
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=10_000),
    n_tokens=st.integers(min_value=1, max_value=4000),
    spread=st.floats(min_value=0.0, max_value=80.0),
    shift=st.floats(min_value=-1e4, max_value=1e4),
    n=st.integers(min_value=1, max_value=MAX_ALTERNATIVES),
)
def test_they_are_the_log_softmax(seed: int, n_tokens: int, spread: float, shift: float, n: int) -> None:
    draw = np.random.default_rng(seed)
    logits = (draw.normal(0, 1, n_tokens) * spread + shift).astype(np.float32)
    token = int(draw.integers(n_tokens))
    found, expected = token_logprobs(logits, token, n), log_softmax(logits)
    assert found.logprob == pytest.approx(expected[token], abs=1e-5)
    assert len(found.top) == min(n, n_tokens)
    best = sorted(range(n_tokens), key=lambda each: (-logits[each], each))[:n]
    assert [each for each, _ in found.top] == best
    assert [value for _, value in found.top] == pytest.approx([expected[each] for each in best], abs=1e-5)


def test_forbidden_and_far_away_tokens_are_no_trouble() -> None:
    logits = np.array([1e4, -1e4, -math.inf, 1e4], dtype=np.float32)
    found = token_logprobs(logits, 0, 3)
    assert [token for token, _ in found.top] == [0, 3, 1]
    assert [value for _, value in found.top] == pytest.approx([-math.log(2), -math.log(2), -2e4 - math.log(2)])
    assert token_logprobs(logits, 2, 1).logprob == -math.inf


# ---- through the loop, on both backends ----


def test_each_token_of_who_asked_has_them_and_nobody_elses(harness: Harness) -> None:
    recording = RecordingBackend(harness.backend)
    harness = Harness(recording, harness.config)
    harness.submit("asked", plain(harness), max_tokens=4, ignore_eos=True, n_logprobs=3)
    harness.run()
    rows = [row.copy() for row in recording.rows]
    harness.submit("silent", plain(harness), max_tokens=4, ignore_eos=True)
    harness.run()
    assert [each.logprobs for each in harness.emissions("silent")] == [None] * 4
    for emission, row in zip(harness.emissions("asked"), rows, strict=True):
        assert emission.logprobs is not None
        expected = log_softmax(row)
        assert emission.logprobs.logprob == pytest.approx(expected[emission.token], abs=1e-5)
        assert [value for _, value in emission.logprobs.top] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-5)


def test_they_are_the_models_whatever_bias_and_penalties_say(harness: Harness) -> None:
    harness.submit("free", plain(harness), max_tokens=1, n_logprobs=2, cache_prompt=False)
    harness.run()
    free = harness.emissions("free")[0]
    assert free.logprobs is not None
    changes = {"logit_bias": {free.token: None}, "temperature": 0.7, "repeat_penalty": 1.8, "top_k": 1}
    harness.submit("bent", plain(harness), max_tokens=1, n_logprobs=2, cache_prompt=False, **changes)  # type: ignore[arg-type]
    harness.run()
    bent = harness.emissions("bent")[0]
    assert bent.token != free.token
    assert bent.logprobs is not None
    assert bent.logprobs.top == free.logprobs.top
    assert bent.logprobs.logprob < free.logprobs.logprob


def test_the_fakes_numbers_by_hand() -> None:
    harness = Harness.fake()
    harness.ask("a", "[[say: x]]", n_logprobs=1)
    harness.run()
    reported = harness.emissions("a")[0].logprobs
    assert reported is not None
    n_others, second = harness.backend.vocabulary.n_tokens - 2, 30.0
    assert reported.logprob == pytest.approx(-math.log1p(math.exp(second - CERTAIN) + n_others * math.exp(-CERTAIN)))


def test_who_does_not_ask_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_processor, "token_logprobs", lambda *_: pytest.fail("computed for nobody"))
    harness = Harness.fake()
    harness.ask("a", "[[say: x]]")
    harness.run()
    assert harness.text("a") == "x"


# ---- over the process border ----


def test_they_survive_the_way() -> None:
    reported = TokenLogprobs(-0.25, [(5, -0.25), (7, -math.inf)])
    step = Step(
        emissions=[Emission("a", 1, 5, "x", reported), Emission("b", 1, 6, "y")], n_prefill=0, n_decode=2, step_ms=1
    )
    assert decode_from_runner(encode(step)) == step


def logprobs_from_a_process(config: EngineConfig, prompt: list[int]) -> list[TokenLogprobs | None]:
    watched = Watched(config)
    watched.runner.start()
    try:
        options = params(max_tokens=3, ignore_eos=True, n_logprobs=20)
        watched.runner.send(Submit(sequence_id="a", prompt=prompt, params=options))
        watched.wait(lambda: watched.ended("a") is not None)
    finally:
        watched.runner.stop(10)
    return [each.logprobs for each in watched.emissions("a")]


def test_the_client_delivers_them() -> None:
    reported = logprobs_from_a_process(fake_config(), [5, 6, 7])
    assert [len(each.top) for each in reported if each] == [20] * 3


@pytest.mark.real_model
def test_the_client_delivers_the_real_models(real_config: EngineConfig) -> None:
    reported = logprobs_from_a_process(real_config, [2, 818, 5279])
    assert len(reported) == 3
    for each in reported:
        assert each is not None
        assert each.logprob == each.top[0][1], "greedy: the likeliest"
        assert 0.1 < sum(math.exp(value) for _, value in each.top) <= 1.0
