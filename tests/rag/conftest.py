"""The store's tests share a process-wide index with nobody: each begins with an empty one."""

import pytest

from chat.rag.search import hybrid
from chat.rag.vectors import embedding
from tests.rag.builders import texts_of, word_vectors


@pytest.fixture(autouse=True)
def _own_index() -> None:
    hybrid.INDEX.clear()


@pytest.fixture(autouse=True, scope="session")
def _encoder_is_loaded() -> None:
    """Else the first search would load it, which on a busy machine takes longer than a search may."""
    embedding.unavailable_reason()


@pytest.fixture
def words_as_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors without the model, quickly."""
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: word_vectors([text])[0])
    monkeypatch.setattr(embedding, "embed_passages", lambda inputs, encoding: word_vectors(texts_of(inputs)))
    monkeypatch.setattr(embedding, "similarities", lambda cosines, question, encoding: cosines)
