"""Our matrix products inside the installed llama.cpp: bit for bit those of the code they stand in for."""

import ctypes
import platform

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.matmul import KINDS, LIBRARY, ORIGINAL, OURS, Kind, Library, operands
from inference.engine.backend import Slice
from inference.engine.config import EngineConfig
from inference.engine.llama_backend import LlamaBackend

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="only built for Linux on x86-64"
)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


def test_the_installed_library_has_our_products() -> None:
    assert hasattr(ctypes.CDLL(str(LIBRARY)), OURS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(
    m=st.one_of(st.integers(1, 40), st.sampled_from([64, 71, 128, 129, 640, 1029])),
    n=st.one_of(st.integers(1, 19), st.just(126)),
    k=st.integers(1, 24),
    n_threads=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@example(m=1029, n=5, k=20, n_threads=3, seed=1)
@example(m=7, n=4, k=2, n_threads=2, seed=2)
def test_products_are_bit_for_bit_the_originals(
    library: Library, kind: Kind, m: int, n: int, k: int, n_threads: int, seed: int
) -> None:
    given_operands = operands(kind, m, n, k, seed)
    expected = library.product(ORIGINAL, given_operands)
    found = library.product(OURS, given_operands, n_threads=n_threads)
    assert found[0] == expected[0] == (n >= 2)
    assert found[1].tobytes() == expected[1].tobytes()
    assert np.isnan(found[1][:, m:]).all()
    assert np.isnan(found[1][:, :m]).all() == (n < 2)


@pytest.mark.parametrize("k", [1024, 1025])
def test_the_widest_weights_and_wider_ones(library: Library, k: int) -> None:
    given_operands = operands(KINDS["Q4_0"], 24, 3, k, 7)
    expected = library.product(ORIGINAL, given_operands)
    found = library.product(OURS, given_operands, n_threads=2)
    assert found[0] is expected[0] is True
    assert found[1].tobytes() == expected[1].tobytes()


@pytest.mark.real_model
def test_threads_that_share_the_products_get_what_one_gets(
    real_backend: LlamaBackend, real_config: EngineConfig
) -> None:
    """Three threads on any number of cores: each takes its pieces in another order every time."""
    slices = [Slice(slot, 0, list(range(1000, 1000 + 30 * slot + 2)), True) for slot in range(4)]
    several = LlamaBackend(msgspec.structs.replace(real_config, threads=3), n_slots=4)
    try:
        for _ in range(5):
            expected, found = real_backend.decode(slices), several.decode(slices)
            assert expected is not None
            assert found is not None
            assert np.array(found).tobytes() == np.array(expected).tobytes()
            for slot in range(4):
                real_backend.remove(slot)
                several.remove(slot)
    finally:
        several.close()
