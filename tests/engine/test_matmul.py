"""Our matrix products inside the installed llama.cpp: bit for bit those of the code they stand in for."""

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.engine.backend import Slice
from inference.engine.config import EngineConfig
from inference.engine.llama_backend import LlamaBackend

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="only built for Linux on x86-64"
)

LIBRARY = Path(llama_cpp.__file__).parent / "lib" / "libggml-cpu.so"
F32, Q8_0 = 0, 8
N_THREADS_MOST = 512


@dataclass(frozen=True)
class Kind:
    """One of ggml's types for weights."""

    ggml_type: int
    block_bytes: int


KINDS = {"Q4_0": Kind(2, 18), "Q5_0": Kind(6, 22), "Q8_0": Kind(8, 34), "IQ4_NL": Kind(20, 18)}


class ThreadpoolParams(ctypes.Structure):
    """ggml_threadpool_params of ggml.h"""

    _fields_ = (
        ("cpumask", ctypes.c_bool * N_THREADS_MOST),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ComputeParams(ctypes.Structure):
    """ggml_compute_params of ggml-cpu-impl.h"""

    _fields_ = (
        ("ith", ctypes.c_int),
        ("nth", ctypes.c_int),
        ("wsize", ctypes.c_size_t),
        ("wdata", ctypes.c_void_p),
        ("threadpool", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


@dataclass(frozen=True)
class Operands:
    """Weights (m, k blocks) and tokens (n, k blocks), a few unused blocks between rows."""

    kind: Kind
    m: int
    n: int
    k: int
    weights: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
    tokens: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def blocks(rng: np.random.Generator, rows: int, k: int, n_bytes: int, *, least: int) -> np.ndarray:
    """Blocks of any bytes (as signed ones at least `least`), each with a scale between 0.001 and 1."""
    found = rng.integers(least, 128, size=(rows, k, n_bytes), dtype=np.int8).view(np.uint8)
    scales = rng.uniform(-1, 1, size=(rows, k)).astype(np.float16)
    found[:, :, :2] = scales.view(np.uint8).reshape(rows, k, 2)
    return found


def operands(kind: Kind, m: int, n: int, k: int, seed: int) -> Operands:
    rng = np.random.default_rng(seed)
    # ggml never quantises a token to -128
    return Operands(
        kind,
        m,
        n,
        k,
        blocks(rng, m, k + 2, kind.block_bytes, least=-128),
        blocks(rng, n, k + 1, KINDS["Q8_0"].block_bytes, least=-127),
    )


class Library:
    """Calls both products as llama.cpp's threads would, one thread after the other."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(LIBRARY))
        self.library.ggml_cpu_init()  # tables of the originals
        self.library.ggml_threadpool_new.restype = ctypes.c_void_p
        self.pool = self.library.ggml_threadpool_new(ctypes.byref(ThreadpoolParams(n_threads=1, poll=50)))

    def product(self, function: str, given: Operands, *, n_threads: int = 1) -> tuple[bool, np.ndarray]:
        """Whether the function took the product, and (n, m + 3) results; untouched ones are NaN."""
        results = np.full((given.n, given.m + 3), np.nan, np.float32)
        call = getattr(self.library, function)
        call.restype = ctypes.c_bool
        taken = True
        for thread in range(n_threads):
            thread_params = ComputeParams(ith=thread, nth=n_threads, threadpool=self.pool)
            taken &= call(
                ctypes.byref(thread_params),
                *(ctypes.c_int64(size) for size in (given.m, given.n, given.k)),
                ctypes.c_void_p(given.weights.ctypes.data),
                ctypes.c_int64(given.weights.shape[1]),
                ctypes.c_void_p(given.tokens.ctypes.data),
                ctypes.c_int64(given.tokens.shape[1]),
                ctypes.c_void_p(results.ctypes.data),
                ctypes.c_int64(results.shape[1]),
                *(ctypes.c_int(number) for number in (given.kind.ggml_type, Q8_0, F32)),
            )
        return taken, results


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


def test_the_installed_library_has_our_products() -> None:
    assert hasattr(ctypes.CDLL(str(LIBRARY)), "__wrap_llamafile_sgemm")


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
    expected = library.product("llamafile_sgemm", given_operands)
    found = library.product("__wrap_llamafile_sgemm", given_operands, n_threads=n_threads)
    assert found[0] == expected[0] == (n >= 2)
    assert found[1].tobytes() == expected[1].tobytes()
    assert np.isnan(found[1][:, m:]).all()
    assert np.isnan(found[1][:, :m]).all() == (n < 2)


@pytest.mark.parametrize("k", [1024, 1025])
def test_the_widest_weights_and_wider_ones(library: Library, k: int) -> None:
    given_operands = operands(KINDS["Q4_0"], 24, 3, k, 7)
    expected = library.product("llamafile_sgemm", given_operands)
    found = library.product("__wrap_llamafile_sgemm", given_operands, n_threads=2)
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
