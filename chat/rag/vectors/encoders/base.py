"""The interface of an encoder, and the work that all encoders share: batches of similar length, and pooling."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime
from django.conf import settings
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
DIMENSIONS = 384
BATCH = 16
# This fusion is slower than its parts: 170 texts/s on one core instead of 189.
SLOWER_FUSED = ["SkipLayerNormFusion"]


class ModelMissing(Exception):
    """No usable model file; the text names no path, so that it may be shown to users."""


@dataclass(frozen=True)
class EncoderInput:
    """A text and the text before it. The model reads both; the vector is the mean over the tokens of ``text`` alone."""

    text: str
    context: str = ""


@dataclass(frozen=True)
class Codes:
    """Tokens of an input; ``pooled`` is 1 for each token that counts in the mean."""

    ids: list[int]
    pooled: list[int]


@dataclass(frozen=True)
class Calibration:
    """Scales cosines to similarities: 0 at the cosine of unrelated texts, 1 at that of equal ones.

    Some questions are close to every text, greetings above all: their cosine with ``everyday``, the mean vector of
    everyday lines, is subtracted.
    """

    unrelated: float
    alike: float
    everyday: Vectors

    def similarities(self, cosines: Vectors, question: Vectors) -> Vectors:
        offset = float(question @ self.everyday) + self.unrelated
        return ((cosines - offset) / (self.alike - self.unrelated)).astype(np.float32)


class Encoder(Protocol):
    """Computes unit vectors of shape (n, 384)."""

    @property
    def calibration(self) -> Calibration: ...

    def questions(self, texts: Sequence[str]) -> Vectors: ...

    def passages(self, inputs: Sequence[EncoderInput], *, parallel: bool = True) -> Vectors: ...

    def n_tokens(self, texts: Sequence[str]) -> int: ...


def start_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model. Raises ModelMissing."""
    options = onnxruntime.SessionOptions()
    # One thread per run and several runs in parallel: 266 texts/s, against 229 with several threads per run.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
        )
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise ModelMissing("the embedding model cannot be used") from error


def encode(
    codes: Sequence[Codes], hidden_states: Callable[[list[list[int]]], Vectors], *, parallel: bool = True
) -> Vectors:
    """Return the unit vectors of all inputs. ``hidden_states`` maps n lists of ids to an array (n, tokens, 384)."""
    # Sorted by length, since padding costs as much as words; the longest first, so that threads end together.
    order = sorted(range(len(codes)), key=lambda number: -len(codes[number].ids))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]

    def vectors_of(batch: list[int]) -> Vectors:
        hidden = hidden_states([codes[number].ids for number in batch])
        weights = np.zeros(hidden.shape[:2], np.float32)
        for row, number in enumerate(batch):
            weights[row, : len(codes[number].pooled)] = codes[number].pooled
        means: Vectors = (hidden * weights[:, :, None]).sum(axis=1) / weights.sum(axis=1, keepdims=True)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means

    result = np.empty((len(codes), DIMENSIONS), np.float32)
    # A single batch, such as a question, needs no thread pool.
    run = _threads().map if parallel and len(batches) > 1 else map
    for batch, vectors in zip(batches, run(vectors_of, batches), strict=True):
        result[batch] = vectors
    return result


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.RAG_EMBEDDING_THREADS, thread_name_prefix="embedding")
