"""Sampling on the real model's own logits: the draw of llama.cpp's full chain, exactly; and the distribution, by test.

Every number here is fixed by seeds, so that results do not vary.
"""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from inference.engine.backends.backend import Slice
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.params import SamplingParams
from inference.engine.sampling.native_chain import Candidates
from inference.engine.sampling.sampler import Sampler
from tests.engine.test_sampling import full_chain

pytestmark = pytest.mark.real_model

TEXTS = ("The capital of France is", "Once upon a time there was a", "def main():\n    ", "1 2 3 4 5 6 7")
SETTINGS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "repeat_penalty": 1.3, "presence_penalty": 0.5},
    {},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0},
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
    {"temperature": 1.5, "top_k": 100, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 0.8, "repeat_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.3},
    {"temperature": 1.0, "logit_bias": {818: 4.0, 236743: None}},
]
# Upper 0.1 % points of chi-square with 1 ... 30 degrees of freedom (Abramowitz and Stegun, table 26.8).
CRITICAL = [10.8, 13.8, 16.3, 18.5, 20.5, 22.5, 24.3, 26.1, 27.9, 29.6, 31.3, 32.9, 34.5, 36.1, 37.7]
CRITICAL += [39.3, 40.8, 42.3, 43.8, 45.3, 46.8, 48.3, 49.7, 51.2, 52.6, 54.1, 55.5, 56.9, 58.3, 59.7]
N_DRAWS = 700


@cache
def candidates(n_tokens: int) -> Candidates:
    return Candidates(n_tokens)


@pytest.fixture
def rows(real_backend: LlamaBackend) -> list[tuple[list[int], NDArray[np.float32]]]:
    """Texts as tokens, and the model's logits behind each."""
    found = []
    for text in TEXTS:
        tokens = [2, *real_backend.vocabulary.encode(text, special=False)]
        logits = real_backend.decode([Slice(0, 0, tokens, True)])
        assert logits is not None
        found.append((tokens, logits[0].copy()))
        real_backend.remove(0)
    return found


@pytest.mark.parametrize("changes", SETTINGS)
def test_the_draw_of_the_full_chain(
    rows: list[tuple[list[int], NDArray[np.float32]]], changes: dict[str, object]
) -> None:
    drawn = set()
    for seed, (history, logits) in enumerate(rows):
        params = SamplingParams(seed=seed, **changes)  # type: ignore[arg-type]
        biased = logits.copy()
        for token, bias in params.logit_bias.items():
            biased[token] += -np.inf if bias is None else bias
        sampler = Sampler(params, candidates(len(logits)))
        got = sampler.sample(logits.copy(), history, seed + 1)
        assert got == full_chain(params, biased, history, seed + 1)
        drawn.add(got)
    assert len(drawn) > 1, "the texts ask for different tokens"


def filtered(params: SamplingParams, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The distribution by definition, in double precision: top-k, top-p, min-p, then temperature."""
    exact = logits.astype(np.float64)
    order = np.argsort(-exact, kind="stable")
    order = order[: params.top_k] if params.top_k else order
    share = np.exp(exact[order] - exact[order[0]])
    share /= share.sum()
    n_kept = int(np.searchsorted(np.cumsum(share), params.top_p) + 1) if params.top_p < 1 else len(order)
    order, share = order[:n_kept], share[:n_kept]
    order = order[share >= params.min_p * share[0]]
    warm = np.exp((exact[order] - exact[order[0]]) / params.temperature)
    result: NDArray[np.float64] = np.zeros(len(exact))
    result[order] = warm / warm.sum()
    return result


@pytest.mark.parametrize("changes", SETTINGS[2:6])
def test_draws_follow_the_distribution_that_the_settings_mean(
    rows: list[tuple[list[int], NDArray[np.float32]]], changes: dict[str, object]
) -> None:
    """Chi-square at 0.1 %: draws with the indexes of one sequence, against the definition (not llama.cpp's code)."""
    _, logits = rows[1]
    params = SamplingParams(seed=4711, **changes)  # type: ignore[arg-type]
    expected = filtered(params, logits) * N_DRAWS
    sampler = Sampler(params, candidates(len(logits)))
    counts = np.zeros(len(logits))
    for index in range(1, N_DRAWS + 1):
        counts[sampler.sample(logits.copy(), [], index)] += 1
    assert counts[expected == 0].sum() == 0, "nothing that a filter takes out is ever drawn"
    # The likeliest each for itself, everything rarer together, as the test wants at least a few in each.
    likely = [int(token) for token in np.argsort(-expected)[: len(CRITICAL)] if expected[token] >= 5]
    groups = [(counts[token], expected[token]) for token in likely]
    rest = (N_DRAWS - sum(got for got, _ in groups), N_DRAWS - sum(wanted for _, wanted in groups))
    groups += [rest] if rest[1] >= 5 else []
    chi_square = sum((got - wanted) ** 2 / wanted for got, wanted in groups)
    assert len(groups) > 3
    assert chi_square < CRITICAL[len(groups) - 2], f"{chi_square:.1f} with {len(groups) - 1} degrees of freedom"


def test_the_chi_square_can_fail(rows: list[tuple[list[int], NDArray[np.float32]]]) -> None:
    """Draws at another temperature are found out."""
    _, logits = rows[1]
    wrong = SamplingParams(seed=4711, temperature=0.7, top_k=0, top_p=0.9, min_p=0.0)
    expected = filtered(SamplingParams(seed=1, **SETTINGS[3]), logits) * N_DRAWS  # type: ignore[arg-type]
    sampler = Sampler(wrong, candidates(len(logits)))
    drawn = [sampler.sample(logits.copy(), [], index) for index in range(1, N_DRAWS + 1)]
    likely = np.argsort(-expected)[:10]
    counts = np.bincount(drawn, minlength=len(logits))
    assert sum((counts[likely] - expected[likely]) ** 2 / expected[likely]) > CRITICAL[9]
