"""Embeddings for callers, by all-MiniLM-L6-v2."""

from collections.abc import Sequence

import numpy as np

from chat.errors import Unavailable
from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import Vectors


def embed_texts(texts: Sequence[str], *, dimensions: int | None) -> tuple[Vectors, int]:
    """Return vectors of length 1, shape (n, dimensions or 384), and the number of tokens read. Raises Unavailable."""
    vectors = embedding.embed(texts)
    if vectors is None:
        raise Unavailable(embedding.unavailable_reason(embedding.LEGACY_ENCODING), code="model_unavailable")
    if dimensions is not None:
        vectors = vectors[:, :dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors.astype("<f4"), embedding.n_tokens(texts)
