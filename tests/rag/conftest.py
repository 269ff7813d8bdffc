"""The store's tests share a process-wide index with nobody: each begins with an empty one."""

import pytest

from chat.rag.search import hybrid
from chat.rag.vectors import embedding
from tests.rag.builders import word_vectors


@pytest.fixture(autouse=True)
def _own_index() -> None:
    hybrid.INDEX.clear()


@pytest.fixture
def words_as_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors without the model, quickly."""
    monkeypatch.setattr(embedding, "embed", word_vectors)
