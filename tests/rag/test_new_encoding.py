"""A change of the encoder or of what it reads: the old vectors are searched until the new ones are complete."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from chat.rag.indexing.indexer import add_note
from chat.rag.models import Passage, VectorEncoding
from chat.rag.search import hybrid
from chat.rag.vectors import backfill, embedding, encodings
from chat.rag.vectors.embedding import EncoderInput, Vectors
from tests.rag.builders import NOW, ask, remember, texts, texts_of, word_vectors

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

OLD, NEW, NEWEST = "old/1", "new/1", "newest/1"
Encode = Callable[[Sequence[EncoderInput], str], Vectors | None]


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder per encoding, whose vectors are unlike those of the others."""

    def vectors(inputs: Sequence[EncoderInput], encoding: str) -> Vectors:
        return word_vectors([f"{encoding} {text[::-1] if encoding == NEW else text}" for text in texts_of(inputs)])

    monkeypatch.setattr(embedding, "embed_passages", vectors)
    monkeypatch.setattr(embedding, "embed_passages_single_threaded", vectors)
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: vectors([EncoderInput(text)], encoding)[0])
    monkeypatch.setattr(embedding, "similarities", lambda cosines, question, encoding: cosines)
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "")
    ask_for(monkeypatch, OLD)


def ask_for(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr(embedding, "target_encoding", lambda: encoding)


def similarity(question: str = "budget item 3") -> float:
    """Return the similarity of the best hit, which is 1 when question and line were encoded alike."""
    [best, *_] = ask(question).sources
    assert best.text == question
    return best.scores["vector"] or 0.0


def store() -> None:
    remember(*(f"budget item {number}" for number in range(9)))


def test_the_old_vectors_are_searched_until_the_new_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    assert encodings.active_encoding() == OLD
    before = similarity()
    ask_for(monkeypatch, NEW)
    monkeypatch.setattr(backfill, "BATCH_PASSAGES", 4)
    seen: list[tuple[float, tuple[int, int] | None]] = []
    embed = embedding.embed_passages_single_threaded

    def watched(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
        seen.append((similarity(), encodings.progress()))
        return embed(inputs, encoding)

    monkeypatch.setattr(embedding, "embed_passages_single_threaded", watched)
    backfill.embed_all()
    assert [similarity for similarity, _ in seen] == pytest.approx([before] * len(seen), abs=1e-3)
    assert [progress for _, progress in seen][:3] == [(0, 9), (4, 9), (8, 9)]
    assert encodings.active_encoding() == NEW
    assert encodings.progress() is None
    assert hybrid.INDEX.fresh().encoding == NEW
    assert similarity() > 0.9
    assert not Passage.objects.exclude(successor=None).exists()


def test_what_is_added_meanwhile_is_taken_along(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    ask_for(monkeypatch, NEW)
    embed = embedding.embed_passages_single_threaded

    def adding(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
        if not Passage.objects.filter(text="the rent is due").exists():
            add_note(owner="", title="", body="the rent is due")
            assert "the rent is due" in texts(ask("the rent is due"))
        return embed(inputs, encoding)

    monkeypatch.setattr(embedding, "embed_passages_single_threaded", adding)
    backfill.embed_all()
    assert encodings.active_encoding() == NEW
    assert similarity("the rent is due") > 0.9


def test_a_killed_process_left_the_rest_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    ask_for(monkeypatch, NEW)
    monkeypatch.setattr(backfill, "BATCH_PASSAGES", 4)
    embed = embedding.embed_passages_single_threaded
    n_calls = iter(range(10))

    def killed(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
        if next(n_calls) == 1:
            raise KeyboardInterrupt
        return embed(inputs, encoding)

    monkeypatch.setattr(embedding, "embed_passages_single_threaded", killed)
    with pytest.raises(KeyboardInterrupt):
        backfill.embed_all()
    assert encodings.progress() == (4, 9)
    backfill.embed_all()
    assert encodings.active_encoding() == NEW


def test_vectors_of_an_abandoned_change_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    encodings.prepare(NEW)
    Passage.objects.update(successor=b"x" * 768)
    ask_for(monkeypatch, NEWEST)
    backfill.embed_all()
    assert encodings.active_encoding() == NEWEST
    assert similarity() > 0.9


@pytest.mark.parametrize("n_batches", [1, 2, 3])
def test_a_process_with_earlier_settings_adds_nothing_to_a_later_change(
    monkeypatch: pytest.MonkeyPatch, n_batches: int
) -> None:
    store()
    ask_for(monkeypatch, NEW)
    monkeypatch.setattr(backfill, "BATCH_PASSAGES", 4)
    embed = embedding.embed_passages_single_threaded
    n_calls = iter(range(1, 100))

    def overtaken(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
        if next(n_calls) == n_batches:
            encodings.prepare(NEWEST)  # by a process that was started with other settings
        return embed(inputs, encoding)

    monkeypatch.setattr(embedding, "embed_passages_single_threaded", overtaken)
    backfill.embed_all()
    assert encodings.progress() == (0, 9)
    ask_for(monkeypatch, NEWEST)
    backfill.embed_all()
    assert encodings.active_encoding() == NEWEST
    assert similarity() > 0.9


def test_vectors_of_the_encoding_before_are_not_stored_after_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    ask_for(monkeypatch, NEW)
    embed = embedding.embed_passages_single_threaded

    def overtaken(inputs: Sequence[EncoderInput], encoding: str) -> Vectors | None:
        VectorEncoding.objects.update(encoding=NEW)
        return embed(inputs, encoding)

    Passage.objects.update(embedding=None)
    monkeypatch.setattr(embedding, "embed_passages_single_threaded", overtaken)
    assert backfill.embed_some() == 0
    assert not Passage.objects.exclude(embedding=None).exists()
    assert backfill.embed_some() == 9
    assert similarity() > 0.9


def test_the_reason_is_that_of_the_vectors_that_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    ask_for(monkeypatch, NEW)
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "gone" if encoding == OLD else "")
    monkeypatch.setattr(embedding, "embed_question", lambda text, encoding: None)
    assert ask("budget item 3").note == "gone"
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "" if encoding == OLD else "not yet")
    assert ask("budget item 3").note == ""


def test_without_the_new_model_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    store()
    ask_for(monkeypatch, NEW)
    monkeypatch.setattr(embedding, "unavailable_reason", lambda encoding="": "" if encoding == OLD else "missing")
    backfill.embed_all()
    assert encodings.active_encoding() == OLD
    assert similarity() > 0.9


@pytest.fixture
def _earlier_tables() -> Iterator[None]:
    executor = MigrationExecutor(connection)
    executor.migrate([("memory", "0005_folded_transcripts")])
    yield
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())


@pytest.mark.usefixtures("_earlier_tables")
def test_rows_of_earlier_versions_get_words_and_contexts() -> None:
    executor = MigrationExecutor(connection)
    apps = executor.loader.project_state([("memory", "0005_folded_transcripts")]).apps
    recording = apps.get_model("memory", "Transcript").objects.create(job_id="a", title="Kickoff", created_at=NOW)
    [vector] = word_vectors([f"{embedding.LEGACY_ENCODING} Yes, by Friday."])
    for position, text in enumerate(["Is the caf\u00e9 ready?", "Yes, by Friday."]):
        segment = apps.get_model("memory", "Segment").objects.create(
            transcript=recording, position=position, text=text, speaker="Zo\u00eb", said_at=NOW
        )
        apps.get_model("memory", "Passage").objects.create(
            kind="transcript_segment",
            text=text,
            speaker="zo\u00eb",
            said_at=NOW,
            transcript=recording,
            segment=segment,
            embedding=embedding.as_bytes(vector),
        )
    note = apps.get_model("memory", "Note").objects.create(title="Status", body="Fine.", metadata={"file": "Falcon.md"})
    apps.get_model("memory", "Passage").objects.create(kind="memory", text="Status\nFine.", said_at=NOW, note=note)
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    first, second, third = Passage.objects.order_by("pk")
    assert (first.context, second.context) == ("", "Zo\u00eb: Is the caf\u00e9 ready?")
    assert {"kickoff", "friday"} <= set(second.terms.split())
    assert {"cafe", "zoe"} <= set(second.context_terms.split())
    assert {"falcon", "status"} <= set(third.terms.split())
    assert VectorEncoding.objects.get().encoding == embedding.LEGACY_ENCODING
    assert texts(ask("cafe", only_related=False))[0] == "Is the caf\u00e9 ready?"
    assert similarity("Yes, by Friday.") > 0.9
    backfill.embed_all()
    assert encodings.active_encoding() == OLD
    assert not Passage.objects.filter(embedding=None).exists()
