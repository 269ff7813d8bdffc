"""Sampling on the cut candidates against llama.cpp's own chain over the whole vocabulary."""

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.errors import BadLogitsError
from inference.engine.params import SamplingParams
from inference.engine.sampling.logit_groups import N_GROUPS
from inference.engine.sampling.native_chain import Candidates
from inference.engine.sampling.sampler import Sampler, draw_seed, margin

N_TOKENS = 5000
N_MANY = 2 * N_GROUPS + 3000  # two tokens in some groups, three in the others
CANDIDATES = {n_tokens: Candidates(n_tokens) for n_tokens in (N_TOKENS, 2 * N_GROUPS, N_MANY)}


def logits_like_a_model(seed: int, n_tokens: int = N_TOKENS, spread: float = 6.0) -> NDArray[np.float32]:
    """Most tokens far below a handful, as a language model's are."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-12, 3, n_tokens)
    logits[generator.integers(0, n_tokens, 60)] = generator.normal(2, spread / 2, 60)
    return logits.astype(np.float32)


def full_chain(params: SamplingParams, logits: NDArray[np.float32], history: list[int], index: int) -> int:
    """llama.cpp over every token: penalties, top-k, top-p, min-p, temperature, draw."""
    parts = [
        lib.llama_sampler_init_penalties(
            len(logits),
            params.repeat_last_n,
            params.repeat_penalty,
            params.frequency_penalty,
            params.presence_penalty,
        ),
        lib.llama_sampler_init_top_k(params.top_k),
        lib.llama_sampler_init_top_p(params.top_p, 1),
        lib.llama_sampler_init_min_p(params.min_p, 1),
        lib.llama_sampler_init_temp(params.temperature),
        lib.llama_sampler_init_dist(draw_seed(params.seed, index)),
    ]
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for part in parts:
        lib.llama_sampler_chain_add(chain, part)
    for token in history:
        lib.llama_sampler_accept(chain, token)
    rows = (lib.llama_token_data * len(logits))()
    layout = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    view = np.frombuffer(rows, dtype=layout)
    view["id"], view["logit"] = np.arange(len(logits)), logits
    array = lib.llama_token_data_array(data=rows, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    drawn = int(array.data[array.selected].id)
    lib.llama_sampler_free(chain)
    return drawn


def sampled(params: SamplingParams, logits: NDArray[np.float32], history: list[int], index: int = 1) -> int:
    return Sampler(params, CANDIDATES[len(logits)]).sample(logits.copy(), history, index)


CHAINS = [
    {},
    {"temperature": 1.0},
    {"temperature": 1.6, "top_k": 0},
    {"temperature": 1.0, "top_k": 0, "min_p": 0.0},
    {"temperature": 0.9, "top_k": 0, "top_p": 1.0},
    {"temperature": 2.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 1.3, "top_k": 200, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 2.0, "top_k": 2, "top_p": 1.0, "min_p": 0.0},
    {"temperature": 1.0, "repeat_penalty": 1.3},
    {"temperature": 1.0, "presence_penalty": 1.5, "frequency_penalty": 0.4},
    {"temperature": 1.0, "repeat_penalty": 0.7, "presence_penalty": -2.0, "repeat_last_n": 5},
]


@pytest.mark.parametrize("n_tokens", CANDIDATES)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_same_draw_as_llama_cpps_full_chain(chain: dict[str, float], n_tokens: int) -> None:
    for seed in range(40):
        params = SamplingParams(seed=seed, **chain)  # type: ignore[arg-type]
        logits = logits_like_a_model(seed, n_tokens)
        history = np.random.default_rng(seed).integers(0, n_tokens, 20).tolist() + [int(logits.argmax())] * 3
        assert sampled(params, logits, history, seed) == full_chain(params, logits, history, seed)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=2**64 - 1),
    temperature=st.floats(min_value=0.05, max_value=2.0),
    top_k=st.integers(min_value=0, max_value=100),
    top_p=st.floats(min_value=0.05, max_value=1.0),
    min_p=st.floats(min_value=0.0, max_value=0.5),
    repeat_penalty=st.floats(min_value=0.5, max_value=2.0),
)
def test_any_parameters_give_llama_cpps_draw(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, repeat_penalty: float
) -> None:
    params = SamplingParams(
        seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty
    )
    logits = logits_like_a_model(seed % 1000)
    history = [int(token) for token in np.argsort(logits)[-10:]]
    assert sampled(params, logits, history, 3) == full_chain(params, logits, history, 3)


def test_draws_follow_the_distribution() -> None:
    """No filter, temperature 1: the frequencies of 4,000 draws are the probabilities, within 4 standard errors."""
    logits = np.full(N_TOKENS, -50.0, dtype=np.float32)
    logits[[10, 20, 30]] = np.log([0.5, 0.3, 0.2])
    params = SamplingParams(seed=99, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
    sampler = Sampler(params, CANDIDATES[N_TOKENS])
    drawn = [sampler.sample(logits.copy(), [], index) for index in range(4000)]
    for token, probability in ((10, 0.5), (20, 0.3), (30, 0.2)):
        error = math.sqrt(probability * (1 - probability) / 4000)
        assert abs(drawn.count(token) / 4000 - probability) < 4 * error


@pytest.mark.parametrize("token", [0, N_GROUPS - 1, N_GROUPS, 2 * N_GROUPS - 1, 2 * N_GROUPS, N_MANY - 1])
def test_a_token_is_found_wherever_it_is(token: int) -> None:
    logits = np.full(N_MANY, -50.0, dtype=np.float32)
    logits[token] = 1.0
    assert sampled(SamplingParams(seed=1, temperature=1.0), logits, []) == token


def test_greedy_is_the_largest_logit() -> None:
    for seed in range(50):
        logits = logits_like_a_model(seed)
        assert sampled(SamplingParams(seed=seed, temperature=0.0), logits, []) == int(logits.argmax())


@settings(max_examples=50, deadline=None)
@given(
    repeat=st.floats(min_value=0.25, max_value=3.0, width=32),
    frequency=st.floats(min_value=-2.0, max_value=2.0, width=32),
    presence=st.floats(min_value=-2.0, max_value=2.0, width=32),
    last_n=st.integers(min_value=1, max_value=12),
    history=st.lists(st.integers(min_value=0, max_value=9), max_size=20),
)
def test_penalties_change_every_logit_as_llama_cpps_do(
    repeat: float, frequency: float, presence: float, last_n: int, history: list[int]
) -> None:
    logits = np.array([5, -5, 0.5, -0.5, 0, 9, -9, 3, -3, 1], dtype=np.float32)
    native = lib.llama_sampler_init_penalties(len(logits), last_n, repeat, frequency, presence)
    for token in history:
        lib.llama_sampler_accept(native, token)
    rows = (lib.llama_token_data * len(logits))()
    for row, token, logit in zip(rows, range(len(logits)), logits.tolist(), strict=True):
        row.id, row.logit = token, logit
    array = lib.llama_token_data_array(data=rows, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(native, ctypes.byref(array))
    lib.llama_sampler_free(native)

    params = SamplingParams(
        seed=1,
        temperature=0.0,
        repeat_penalty=repeat,
        frequency_penalty=frequency,
        presence_penalty=presence,
        repeat_last_n=last_n,
    )
    Sampler(params, Candidates(len(logits))).sample(logits, history, 1)
    assert logits.tolist() == pytest.approx([row.logit for row in rows], rel=1e-6, abs=1e-6)


def test_greedy_respects_penalties() -> None:
    logits = np.zeros(N_TOKENS, dtype=np.float32)
    logits[[7, 8]] = 5.0, 4.0
    params = SamplingParams(seed=1, temperature=0.0, repeat_penalty=2.0)
    assert sampled(params, logits, []) == 7
    assert sampled(params, logits, [7]) == 8


def test_the_penalty_forgets_what_lies_further_back() -> None:
    logits = np.zeros(N_TOKENS, dtype=np.float32)
    logits[[7, 8]] = 5.0, 4.0
    history = [7, *range(100, 164)]
    short = SamplingParams(seed=1, temperature=0.0, repeat_penalty=2.0, repeat_last_n=64)
    whole = SamplingParams(seed=1, temperature=0.0, repeat_penalty=2.0, repeat_last_n=-1)
    off = SamplingParams(seed=1, temperature=0.0, repeat_penalty=2.0, repeat_last_n=0)
    assert [sampled(params, logits, history) for params in (short, whole, off)] == [7, 8, 7]


@pytest.mark.parametrize("penalty", [{"presence_penalty": 2.0}, {"frequency_penalty": 0.02}])
@pytest.mark.parametrize("last_n", [0, 3, 64])
def test_penalties_of_the_answer_alone(penalty: dict[str, float], last_n: int) -> None:
    logits = np.zeros(N_TOKENS, dtype=np.float32)
    logits[[7, 8]] = 5.0, 4.0
    params = SamplingParams(seed=1, temperature=0.0, penalizes_answer=True, repeat_last_n=last_n, **penalty)  # type: ignore[arg-type]
    prompt = [7] * 100
    assert sampled(params, logits, prompt, 1) == 7
    # However far back in the answer.
    answer = [7] * 60 + list(range(100, 300))
    assert sampled(params, logits, [8, *answer], len(answer) + 1) == 8
    assert sampled(params, logits, [*answer, 9, 10], 3) == 7


def test_the_repeat_penalty_counts_the_prompt_also_beside_penalties_of_the_answer() -> None:
    logits = np.zeros(N_TOKENS, dtype=np.float32)
    logits[[7, 8]] = 5.0, 4.0
    params = SamplingParams(
        seed=1, temperature=0.0, penalizes_answer=True, repeat_penalty=2.0, presence_penalty=-3.0, repeat_last_n=5
    )
    assert sampled(params, logits, [7, 1, 2], 1) == 8
    # 5 / 2 + 3 beats 4.
    assert sampled(params, logits, [1, 2, 7], 2) == 7


def test_logit_bias_adds_and_forbids() -> None:
    logits = np.zeros(N_TOKENS, dtype=np.float32)
    logits[[7, 8]] = 5.0, 4.0
    assert sampled(SamplingParams(seed=1, temperature=0.0, logit_bias={8: 2.0}), logits, []) == 8
    assert sampled(SamplingParams(seed=1, temperature=0.0, logit_bias={7: None}), logits, []) == 8
    raised = SamplingParams(seed=1, temperature=0.8, logit_bias={4321: 60.0})
    assert sampled(raised, logits, []) == 4321


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = np.full(N_TOKENS, -20.0, dtype=np.float32)
    logits[[1, 2]] = 10.0, 3.0
    sampler = Sampler(SamplingParams(seed=3, temperature=1.0), CANDIDATES[N_TOKENS], forbidden=[1])
    assert {sampler.sample(logits.copy(), [], index) for index in range(50)} == {2}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_numbers_that_are_none_are_told(broken: float, temperature: float) -> None:
    logits = logits_like_a_model(1)
    logits[4] = broken
    with pytest.raises(BadLogitsError, match=str(broken)):
        sampled(SamplingParams(seed=1, temperature=temperature), logits, [])


def test_everything_forbidden_is_told() -> None:
    logits = np.full(N_TOKENS, -math.inf, dtype=np.float32)
    with pytest.raises(BadLogitsError, match="-inf"):
        sampled(SamplingParams(seed=1), logits, [])


@pytest.mark.parametrize("temperature", [1e-6, 1e-20, 3e-38, 1e-38, 1e-45, 5e-324])
@pytest.mark.parametrize("filters", [{}, {"top_k": 0, "top_p": 1.0, "min_p": 0.0}, {"top_k": 3}, {"top_p": 0.1}])
def test_a_tiny_temperature_is_greedy(temperature: float, filters: dict[str, float]) -> None:
    for seed in range(5):
        logits = logits_like_a_model(seed)
        best = int(logits.argmax())
        params = SamplingParams(seed=seed, temperature=temperature, **filters)  # type: ignore[arg-type]
        assert sampled(params, logits, [5, 5, 9]) == best


@pytest.mark.parametrize(
    "extreme",
    [
        {"min_p": 1e-45},
        {"min_p": 5e-324, "top_k": 0},
        {"min_p": 1.0},
        {"top_p": 1e-45},
        {"top_p": 5e-324, "min_p": 0.0},
        {"top_p": 1 - 1e-16},
        {"repeat_penalty": 1e-40},
        {"repeat_penalty": 1e300},
        {"frequency_penalty": -100.0},
        {"frequency_penalty": 1e300},
        {"presence_penalty": -1e39},
        {"logit_bias": {3: 1e6, 4: -1e6}},
        {"logit_bias": {3: 1e300, 4: None}},
        {"top_k": 1_000_000},
        {"top_k": (1 << 32) + 1},
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1e-5, 1e-4, 0.7, 100.0, 1e300])
def test_extreme_parameters_stay_in_float32(extreme: dict[str, Any], temperature: float) -> None:
    """Whatever the parameters, a token is drawn that is not forbidden; warnings (overflow) are errors."""
    for index in range(1, 6):
        params = SamplingParams(seed=index, temperature=temperature, **extreme)
        token = sampled(params, logits_like_a_model(index), [3, 3, 4, 700, 701] * 20, index)
        assert 0 <= token < N_TOKENS
        assert extreme.get("logit_bias", {}).get(token, 0.0) is not None


@pytest.mark.parametrize("temperature", [0.0, 1e-5, 0.7])
def test_a_large_bias_decides_at_any_temperature(temperature: float) -> None:
    for bias in (1e6, 1e30, 1e300):
        params = SamplingParams(seed=1, temperature=temperature, logit_bias={77: bias})
        assert sampled(params, logits_like_a_model(2), []) == 77


def test_a_top_k_beyond_int32_is_no_top_k_of_one() -> None:
    logits = logits_like_a_model(1)
    options: dict[str, Any] = {"temperature": 50.0, "top_k": (1 << 32) + 1, "top_p": 1.0, "min_p": 0.0}
    assert len({sampled(SamplingParams(seed=seed, **options), logits, []) for seed in range(20)}) > 1


def test_a_draw_depends_on_seed_and_index_alone() -> None:
    logits = logits_like_a_model(5)
    params = SamplingParams(seed=77, temperature=2.5, top_k=0, top_p=1.0, min_p=0.0)
    first = [Sampler(params, CANDIDATES[N_TOKENS]).sample(logits.copy(), [], index) for index in range(30)]
    sampler = Sampler(params, CANDIDATES[N_TOKENS])
    backwards = [sampler.sample(logits.copy(), [], index) for index in reversed(range(30))]
    assert first == backwards[::-1]
    assert len(set(first)) > 5, "and not on nothing at all"


@given(seed=st.integers(min_value=-(2**70), max_value=2**70), index=st.integers(min_value=0, max_value=2**40))
def test_a_draws_seed_is_one_that_llama_cpp_takes_as_given(seed: int, index: int) -> None:
    assert 0 <= draw_seed(seed, index) < 0xFFFFFFFF


def test_neighbouring_draws_have_unlike_seeds() -> None:
    seeds = {draw_seed(seed, index) for seed in range(100) for index in range(100)}
    assert len(seeds) == 10_000


def test_the_margin_covers_what_a_filter_lets_through() -> None:
    assert margin(SamplingParams(seed=1, min_p=1e-12)) > 12 * math.log(10)
    assert margin(SamplingParams(seed=1, min_p=0.0, top_p=1.0, temperature=2.0)) == 52.0


@pytest.mark.real_model
def test_the_same_draw_on_a_real_vocabulary() -> None:
    n_tokens = 262_144
    candidates = Candidates(n_tokens)
    for seed in range(3):
        logits = logits_like_a_model(seed, n_tokens)
        for chain in ({}, {"temperature": 1.0, "top_k": 0, "min_p": 0.0}):
            params = SamplingParams(seed=seed, **chain)  # type: ignore[arg-type]
            token = Sampler(params, candidates).sample(logits.copy(), [], 1)
            assert token == full_chain(params, logits, [], 1)
