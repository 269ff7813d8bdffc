"""The store's tests share a process-wide index with nobody: each begins with an empty one."""

import pytest

from chat.memory import embedding, store
from tests.memory.making import word_vectors


@pytest.fixture(autouse=True)
def _own_index() -> None:
    store.INDEX.forget()


@pytest.fixture
def words_as_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors without the model, quickly."""
    monkeypatch.setattr(embedding, "embed", word_vectors)
