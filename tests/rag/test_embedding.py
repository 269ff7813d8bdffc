"""The real model: what is alike is near, alone or among others; without it words are searched, and that is said."""

from pathlib import Path

import numpy as np
import pytest
from pytest_django import Settings

from chat.rag.vectors import embedding
from tests.rag.builders import ask, remember, texts

ALIKE = [
    ("How much does the flat cost?", "The rent of the apartment is 900 euros."),
    ("When is it due?", "The deadline moved to Friday."),
    ("Who is ill?", "Sarah caught the flu and stays in bed."),
    ("The car broke down", "Our vehicle stopped working on the motorway"),
]


def vectors(*sentences: str) -> embedding.Vectors:
    result = embedding.embed(sentences)
    assert result is not None
    return result


def test_paraphrases_are_near_and_strangers_far() -> None:
    left, right = vectors(*(a for a, _ in ALIKE)), vectors(*(b for _, b in ALIKE))
    nearness = left @ right.T
    np.fill_diagonal(off_diagonal := nearness.copy(), 0.0)
    assert nearness.diagonal().min() > 0.25
    assert (nearness.diagonal() > off_diagonal.max(axis=1) + 0.15).all()


def test_alone_or_among_others_the_vector_is_the_same() -> None:
    many_texts = [text for pair in ALIKE for text in pair] + ["Yes.", "word " * 300, "", "Zürich, naïve, 預算"] * 4
    together = vectors(*many_texts)
    alone = np.concatenate([vectors(text) for text in many_texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_what_comes_after_256_tokens_is_not_read() -> None:
    long = "word " * 254
    assert np.array_equal(vectors(long), vectors(long + "quite another ending"))


def test_stored_vectors_lose_nothing_that_matters() -> None:
    [vector] = vectors("The deadline moved to Friday.")
    stored = np.frombuffer(embedding.as_bytes(vector), np.float16)
    assert np.abs(stored - vector).max() < 1e-3


@pytest.fixture(params=["missing", "broken"])
def _no_model(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "model.onnx"
    if request.param == "broken":
        path.write_bytes(b"no model")
    settings.RAG_EMBEDDING_PATH = path


@pytest.mark.usefixtures("_no_model")
@pytest.mark.django_db(transaction=True)
def test_without_a_model_words_are_searched(caplog: pytest.LogCaptureFixture) -> None:
    remember("The deadline moved to Friday.", "My cat likes fish.")
    result = ask("the deadline")
    assert texts(result) == ["The deadline moved to Friday."]
    assert result.note.startswith("the embedding model can")
    assert result.sources[0].scores["vector"] is None
    assert embedding.unavailable_reason() == result.note
    assert "/" not in result.note
    assert len([record for record in caplog.records if record.name == embedding.log.name]) == 1
