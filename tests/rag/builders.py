"""Recordings, questions and a stand-in for the embedding model, as these tests need them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from chat.rag.indexing.indexer import index_transcript
from chat.rag.models import Transcript
from chat.rag.query import SourceFilters
from chat.rag.records import SegmentIn, TranscriptIn
from chat.rag.retrieval.retriever import RetrievalQuery, RetrievalResult, retrieve
from chat.rag.vectors.embedding import DIMENSIONS, EncoderInput, Vectors
from chat.rag.words import words

NOW = datetime(2026, 3, 11, 12, tzinfo=UTC)  # a Wednesday


def line(text: str, speaker: str = "Sarah", *, at: datetime = NOW, emotion: str = "") -> SegmentIn:
    return SegmentIn(text=text, speaker=speaker, emotion=emotion, said_at=at)


def remember(
    *lines: str | SegmentIn, owner: str = "", job_id: str = "job", title: str = "", at: datetime = NOW
) -> Transcript:
    segments = tuple(utterance if isinstance(utterance, SegmentIn) else line(utterance, at=at) for utterance in lines)
    transcript = TranscriptIn(job_id=job_id, segments=segments, title=title, recorded_at=at)
    return index_transcript(owner=owner, transcript=transcript)


def ask(
    text: str,
    *,
    owner: str | None = "",
    top_k: int = 5,
    filters: SourceFilters | None = None,
    kind: str | None = None,
    now: datetime = NOW,
    with_neighbours: bool = False,
    only_related: bool = True,
) -> RetrievalResult:
    return retrieve(
        RetrievalQuery(
            text=text,
            top_k=top_k,
            filters=filters or SourceFilters(),
            owner=owner,
            now=now,
            kind=kind,
            with_neighbours=with_neighbours,
            only_related=only_related,
        )
    )


def texts(result: RetrievalResult) -> list[str]:
    assert result.error == ""
    return [source.text for source in result.sources]


def texts_of(inputs: Sequence[EncoderInput]) -> list[str]:
    """Return what the encoder is given, without the speaker."""
    return [item.text.partition(": ")[2] or item.text for item in inputs]


def word_vectors(sentences: Sequence[str]) -> Vectors:
    """A model for tests of filters and ranking: texts that share words are near each other."""
    vectors = np.full((len(sentences), DIMENSIONS), 1e-3, np.float32)
    for row, text in enumerate(sentences):
        for word in words(text):
            vectors[row, sum(word.encode()) % DIMENSIONS] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
