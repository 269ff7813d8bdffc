"""``python -m bench.matmul``: our matrix products beside those they stand in for, one thread, in turn.

Both lie in the installed llama.cpp (see ``tools/llama``) and give the same results bit for bit, as
``tests/engine/test_matmul.py`` checks.
"""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np

LIBRARY = Path(llama_cpp.__file__).parent / "lib" / "libggml-cpu.so"
ORIGINAL, OURS = "llamafile_sgemm", "__wrap_llamafile_sgemm"
F32, Q8_0 = 0, 8
N_THREADS_MOST = 512


@dataclass(frozen=True)
class Kind:
    """A weight type of ggml."""

    ggml_type: int
    block_bytes: int


KINDS = {"Q5_0": Kind(6, 22), "Q8_0": Kind(8, 34)}


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
    """Blocks of any bytes (as signed ones at least `least`), each with a scale between -1 and 1."""
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
    """Calls both products as llama.cpp's threads do."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(LIBRARY))
        self.library.ggml_cpu_init()  # tables of the originals
        self.library.ggml_threadpool_new.restype = ctypes.c_void_p
        self.pool = self.library.ggml_threadpool_new(ctypes.byref(ThreadpoolParams(n_threads=1, poll=50)))

    def product(self, function: str, given: Operands, *, n_threads: int = 1) -> tuple[bool, np.ndarray]:
        """Run the first thread's part: return whether it computed the product, and (n, m + 3) results, else NaN."""
        results = np.full((given.n, given.m + 3), np.nan, np.float32)
        call = getattr(self.library, function)
        call.restype = ctypes.c_bool
        taken = call(
            ctypes.byref(ComputeParams(ith=0, nth=n_threads, threadpool=self.pool)),
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


# Of Gemma 3 270M: a feed-forward layer's, which stay in a core's cache here; half of the output layer's, which do not.
SHAPES = (("Q5_0", 2048, 20), ("Q8_0", 131_072, 20))
TOKENS = (2, 4, 8, 16, 128)
N_ROUNDS = 15


def seconds(library: Library, function: str, given: Operands) -> float:
    started = time.perf_counter()
    library.product(function, given)
    return time.perf_counter() - started


def main() -> None:
    library = Library()
    print("| weights | tokens | llama.cpp's, ms | ours, ms | ours / theirs |\n|---|---|---|---|---|")
    for name, m, k in SHAPES:
        for n in TOKENS:
            given = operands(KINDS[name], m, n, k, seed=n)
            rounds = [(seconds(library, ORIGINAL, given), seconds(library, OURS, given)) for _ in range(N_ROUNDS)]
            theirs, ours = (min(side) * 1e3 for side in zip(*rounds, strict=True))
            print(f"| {name} {m} x {32 * k} | {n} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
