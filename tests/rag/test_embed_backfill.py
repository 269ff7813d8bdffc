"""Vectors that are computed after a text was stored: found by words at once, by meaning afterwards."""

import numpy as np
import pytest

from chat.rag.indexing import indexer
from chat.rag.indexing.indexer import delete_transcript, index_transcript
from chat.rag.models import Passage, Transcript
from chat.rag.records import NoteIn, TranscriptIn
from chat.rag.search import hybrid
from chat.rag.vectors import backfill, embedding
from chat.rag.vectors.embedding import EncoderInput
from tests.rag.builders import NOW, ask, line, texts, texts_of, word_vectors

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.databases,
    pytest.mark.usefixtures("words_as_vectors"),
]


@pytest.fixture(autouse=True)
def _quick_vectors_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        embedding, "embed_passages_single_threaded", lambda inputs, encoding: word_vectors(texts_of(inputs))
    )


def stored(n_lines: int, job_id: str = "long") -> Transcript:
    lines = tuple(line(f"budget item {number}") for number in range(n_lines))
    given = TranscriptIn(job_id=job_id, segments=lines, recorded_at=NOW)
    return index_transcript(owner="", transcript=given, defer_embedding=True)


def parts_of_scores() -> list[bool]:
    """Return for each hit whether its vector matched."""
    return [source.scores["vector"] is not None for source in ask("budget item 7").sources]


def test_found_by_words_at_once_and_by_meaning_afterwards() -> None:
    stored(9)
    assert texts(ask("budget item 7"))[0] == "budget item 7"
    assert parts_of_scores() == [False] * 5
    assert backfill.embed_some() == 9
    assert parts_of_scores() == [True] * 5
    assert texts(ask("budget item 7"))[0] == "budget item 7"
    assert backfill.embed_some() == 0


def test_the_index_takes_vectors_up_without_reading_everything_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stored(9)
    assert ask("budget").sources
    earlier = hybrid.INDEX.snapshot
    backfill.embed_some()
    assert parts_of_scores() == [True] * 5
    assert hybrid.INDEX.snapshot.vectors is earlier.vectors
    assert not earlier.columns.has_vector.any()
    [expected] = word_vectors(["budget item 0"])
    assert np.allclose(hybrid.INDEX.snapshot.vectors[0], expected, atol=1e-3)


def test_a_killed_process_left_the_rest_to_do() -> None:
    stored(backfill.BATCH_PASSAGES + 5)
    assert backfill.embed_some() == backfill.BATCH_PASSAGES
    # Whoever starts next finds what is left in the table, and nothing else.
    assert Passage.objects.filter(embedding=None).count() == 5
    backfill.embed_all()
    assert not Passage.objects.filter(embedding=None).exists()


def test_what_is_deleted_while_it_is_embedded_stays_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    stored(3)

    def deleting(inputs: list[EncoderInput], encoding: str) -> embedding.Vectors:
        delete_transcript(owner="", job_id="long")
        return word_vectors(texts_of(inputs))

    monkeypatch.setattr(embedding, "embed_passages_single_threaded", deleting)
    backfill.embed_some()
    assert texts(ask("budget")) == []
    assert not Passage.objects.exists()


def test_without_the_model_nothing_is_tried_and_with_it_all_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embed_passages", lambda inputs, encoding: None)
    reason = "the embedding model cannot be read"
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": reason)
    indexer.add_notes(owner="", notes=[NoteIn(title="", body="the budget")])
    backfill.embed_all()
    assert Passage.objects.filter(embedding=None).count() == 1
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "")
    backfill.embed_all()
    assert not Passage.objects.filter(embedding=None).exists()


def test_only_long_texts_are_put_off() -> None:
    assert not indexer.is_long_to_embed(["x" * 5_000] * 2)
    assert indexer.is_long_to_embed(["x" * 5_000] * 2 + ["x"])
