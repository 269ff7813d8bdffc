"""The built-in home of memories: searches our own database by meaning and by words, and joins the two."""

import time

import numpy as np
from django.db.models import Q, QuerySet

from chat.memory import embedding
from chat.memory.models import SHARED, Passage
from chat.memory.query import MemoryQuery, Search
from chat.memory.sources import Source


def search(query: MemoryQuery) -> Search:
    started = time.monotonic()
    rows = _searched(query)
    vectors = embedding.embed([query.text])
    if vectors is None:
        return Search(note=embedding.problem(), latency_ms=(time.monotonic() - started) * 1000)
    held = [(row, np.frombuffer(row.embedding, np.float16)) for row in rows if row.embedding is not None]
    ranked = sorted(((float(vector @ vectors[0]), row.pk, row) for row, vector in held), reverse=True)
    sources = tuple(_source(row, score) for score, _, row in ranked[: query.top_k])
    return Search(sources=sources, latency_ms=(time.monotonic() - started) * 1000)


def _searched(query: MemoryQuery) -> QuerySet[Passage]:
    found = Passage.objects.filter(Q(owner=SHARED) | Q(owner=query.owner or SHARED))
    if query.filters.speakers:
        found = found.filter(speaker__in=[name.casefold() for name in query.filters.speakers])
    if query.kind:
        found = found.filter(kind=query.kind)
    return found.select_related("segment", "transcript", "note")


def _source(row: Passage, score: float) -> Source:
    segment, note = row.segment, row.note
    return Source(
        kind=row.kind,
        text=row.text,
        title=note.title if note else row.transcript.title if row.transcript else "",
        speaker=segment.speaker if segment else "",
        time=row.said_at.isoformat(),
        start_time=segment.start_secs if segment else None,
        emotion=segment.emotion if segment else "",
        score=score,
        doc_id=str(row.segment_id or row.note_id),
        scores={"vector": score, "text": None, "recency": None},
    )
