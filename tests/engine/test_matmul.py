"""Our matrix products inside the installed llama.cpp: bit for bit those of the code they stand in for."""

import ctypes
import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.matmul import F32, KINDS, LIBRARY, ORIGINAL, OURS, Kind, Library, blocks, operands

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="only built for Linux on x86-64"
)
HAS_VNNI = "avx512_vnni" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False
GRAPH_BYTES = 64 << 20
PIECE_ROWS = 32  # of 1,024 rows among two threads


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


@pytest.mark.skipif(not HAS_VNNI, reason="the CPU has no AVX-512 VNNI: the originals compute")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_thread_takes_what_the_others_have_not_begun(library: Library, kind: Kind) -> None:
    """Also: ours is what is asked. The original would compute this thread's half and no more."""
    if not any(name in LIBRARY.read_bytes() for name in (b"GOMP_barrier", b"__kmpc_barrier")):
        pytest.skip("without OpenMP a thread outside a graph waits for ever")
    given_operands = operands(kind, 1024, 6, 4, 1)
    taken, found = library.product(OURS, given_operands, n_threads=2)
    assert taken
    is_there = ~np.isnan(found[:, :1024])
    of_the_other = np.zeros(1024, bool)
    of_the_other[PIECE_ROWS : 2 * PIECE_ROWS] = True
    assert (is_there == ~of_the_other).all()
    half = ~np.isnan(library.product(ORIGINAL, given_operands, n_threads=2)[1][:, :1024])
    assert half.mean() == 0.5


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(
    m=st.one_of(st.integers(1, 40), st.sampled_from([64, 71, 128, 129, 640, 1029])),
    n=st.one_of(st.integers(1, 19), st.just(126)),
    k=st.integers(1, 24),
    seed=st.integers(0, 2**32 - 1),
)
@example(m=1029, n=5, k=20, seed=1)
@example(m=7, n=4, k=2, seed=2)
def test_products_are_bit_for_bit_the_originals(
    library: Library, kind: Kind, m: int, n: int, k: int, seed: int
) -> None:
    given_operands = operands(kind, m, n, k, seed)
    expected = library.product(ORIGINAL, given_operands)
    found = library.product(OURS, given_operands)
    assert found[0] == expected[0] == (n >= 2)
    assert found[1].tobytes() == expected[1].tobytes()
    assert np.isnan(found[1][:, m:]).all()
    assert np.isnan(found[1][:, :m]).all() == (n < 2)


@pytest.mark.parametrize("k", [1024, 1025])
def test_the_widest_weights_and_wider_ones(library: Library, k: int) -> None:
    given_operands = operands(KINDS["Q5_0"], 24, 3, k, 7)
    expected = library.product(ORIGINAL, given_operands)
    found = library.product(OURS, given_operands)
    assert found[0] is expected[0] is True
    assert found[1].tobytes() == expected[1].tobytes()


class GraphMemory(ctypes.Structure):
    """ggml_init_params of ggml.h"""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Graph:
    """One node: planes of weights (m x 32k) with planes of tokens (n x 32k), as attention has them for its heads."""

    def __init__(self, kind: Kind, shape: tuple[int, int, int], planes: tuple[int, int]) -> None:
        (m, n, k), (n_weights, n_tokens) = shape, planes
        self.base = ctypes.CDLL(str(LIBRARY.with_name("libggml-base.so")))
        self.cpu = ctypes.CDLL(str(LIBRARY))
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        for name in ("ggml_init", "ggml_new_tensor_3d", "ggml_mul_mat", "ggml_new_graph", "ggml_get_data"):
            getattr(self.base, name).restype = pointer
        self.base.ggml_init.argtypes = [GraphMemory]
        self.base.ggml_new_tensor_3d.argtypes = [pointer, ctypes.c_int, size, size, size]
        self.base.ggml_mul_mat.argtypes = [pointer] * 3
        self.base.ggml_new_graph.argtypes = [pointer]
        self.base.ggml_get_data.argtypes = [pointer]
        self.base.ggml_build_forward_expand.argtypes = [pointer] * 2
        self.base.ggml_free.argtypes = [pointer]
        self.cpu.ggml_graph_compute_with_ctx.argtypes = [pointer, pointer, ctypes.c_int]
        self.cpu.ggml_cpu_init()
        self.context = self.base.ggml_init(GraphMemory(GRAPH_BYTES, None, False))
        weights = self.base.ggml_new_tensor_3d(self.context, kind.ggml_type, 32 * k, m, n_weights)
        tokens = self.base.ggml_new_tensor_3d(self.context, F32, 32 * k, n, n_tokens)
        product = self.base.ggml_mul_mat(self.context, weights, tokens)
        self.graph = self.base.ggml_new_graph(self.context)
        self.base.ggml_build_forward_expand(self.graph, product)
        rng = np.random.default_rng(m)
        values = blocks(rng, n_weights * m, k, kind.block_bytes, least=-128)
        ctypes.memmove(self.base.ggml_get_data(weights), values.ctypes.data, values.nbytes)
        inputs = rng.standard_normal(n_tokens * n * 32 * k).astype(np.float32)
        ctypes.memmove(self.base.ggml_get_data(tokens), inputs.ctypes.data, inputs.nbytes)
        address = self.base.ggml_get_data(product)
        self.results = np.ctypeslib.as_array((ctypes.c_float * (n_tokens * n * m)).from_address(address))

    def compute(self, n_threads: int) -> bytes:
        self.results[:] = np.nan
        assert self.cpu.ggml_graph_compute_with_ctx(self.context, self.graph, n_threads) == 0
        return self.results.tobytes()

    def close(self) -> None:
        del self.results
        self.base.ggml_free(self.context)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    ("shape", "planes"),
    [((8, 2, 3), (1, 1)), ((65, 3, 8), (1, 4)), ((256, 7, 8), (2, 8)), ((1029, 5, 4), (1, 3)), ((200, 9, 8), (4, 8))],
)
def test_threads_that_share_the_products_get_what_one_gets(
    kind: Kind, shape: tuple[int, int, int], planes: tuple[int, int]
) -> None:
    """Also where one node is several products in a row, which count their pieces with one counter."""
    graph = Graph(kind, shape, planes)
    try:
        expected = graph.compute(1)
        assert not np.isnan(graph.results).any()
        assert all(graph.compute(n_threads) == expected for _ in range(8) for n_threads in (2, 3, 5, 1))
    finally:
        graph.close()
