"""Brings memories in and takes them out, whole and in one transaction each; both indexes follow.

Knows no wire form; the callers have parsed and authorised.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from chat.rag.indexing import chunking
from chat.rag.indexing.ordering import writing_in_order
from chat.rag.indexing.row_builders import note_of, segments_of, transcript_of
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import NoteIn, TranscriptIn
from chat.rag.vectors import embedding
from chat.rag.vectors.index import prune_changes

# How much is embedded and stored together: enough to sort by length, little enough that an interruption costs little.
GROUP_SEGMENTS = 1_024
ROWS_PER_INSERT = 500
# What is embedded while whoever brought it waits: about two seconds' work. The rest gets its vectors afterwards.
CHARS_AT_ONCE = 10_000


def is_long_to_embed(texts: Iterable[str]) -> bool:
    """Too long for a request to wait until the vectors are computed."""
    return sum(map(len, texts)) > CHARS_AT_ONCE


def index_transcript(*, owner: str, transcript: TranscriptIn, defer_embedding: bool = False) -> Transcript:
    """Store and index a recording; one with the same ``job_id`` is replaced, an equal one left as it is."""
    return next(index_transcripts(owner=owner, transcripts=[transcript], defer_embedding=defer_embedding))


def index_transcripts(
    *, owner: str, transcripts: Iterable[TranscriptIn], defer_embedding: bool = False
) -> Iterator[Transcript]:
    """The same for many, lazily: each group is committed before its transcripts are yielded, in their order."""
    before: _Group | None = None
    for given in _groups(transcripts):
        # While a group is written, the next one is embedded.
        group = _Group(owner, given, defer_embedding=defer_embedding)
        if before:
            yield from before.store()
        before = group
    if before:
        yield from before.store()


def add_note(
    *,
    owner: str,
    title: str,
    body: str,
    metadata: Mapping[str, Any] | None = None,
    key: str = "",
    created_at: datetime | None = None,
) -> Note:
    note = NoteIn(title=title, body=body, metadata=metadata or {}, key=key, created_at=created_at)
    return add_notes(owner=owner, notes=[note])[0]


def add_notes(*, owner: str, notes: Iterable[NoteIn], defer_embedding: bool = False) -> list[Note]:
    """Store and index notes; one with the ``key`` of an older one replaces it."""
    made = _last_of_each_key(note_of(owner, note) for note in notes)
    pieces = [piece for note in made for piece in chunking.of_note(note)]
    _give(pieces, None if defer_embedding else embedding.embed([piece.text for piece in pieces]))
    keys = [note.key for note in made if note.key]
    with writing_in_order():
        Note.objects.filter(owner=owner, key__in=keys).delete()
        Note.objects.bulk_create(made, batch_size=ROWS_PER_INSERT)
        Passage.objects.bulk_create(pieces, batch_size=ROWS_PER_INSERT)
    return made


def _last_of_each_key(notes: Iterable[Note]) -> list[Note]:
    return list({note.key or id(note): note for note in notes}.values())


def delete_transcript(*, owner: str, job_id: str) -> bool:
    """Whether there was one. Answers that cite it keep their own copy of what they were shown."""
    with transaction.atomic():
        prune_changes()
        return bool(Transcript.objects.filter(owner=owner, job_id=job_id).delete()[0])


def delete_note(*, owner: str, note_id: int) -> bool:
    """Whether there was one."""
    with transaction.atomic():
        prune_changes()
        return bool(Note.objects.filter(owner=owner, pk=note_id).delete()[0])


class _Group:
    """Transcripts that are embedded and stored together. Of two with the same name the later one counts."""

    def __init__(self, owner: str, given: list[TranscriptIn], *, defer_embedding: bool) -> None:
        self.owner, self.job_ids = owner, [each.job_id for each in given]
        wanted = {each.job_id: each for each in given}
        self.known = self._known(wanted)
        new = [each for job_id, each in wanted.items() if not self._is_known(each, self.known.get(job_id))]
        self.rows = {each.job_id: transcript_of(owner, each, self.known.get(each.job_id)) for each in new}
        self.segments = [one for each in new for one in segments_of(self.rows[each.job_id], each)]
        self.pieces = [piece for one in self.segments for piece in chunking.of_segment(one, owner=owner)]
        self.vectors = None if defer_embedding else embedding.embed_in_background([piece.text for piece in self.pieces])

    def store(self) -> list[Transcript]:
        _give(self.pieces, self.vectors.result() if self.vectors else None)
        with writing_in_order():
            # Asked again: somebody may have stored one of them meanwhile.
            for job_id, before in self._known(self.rows).items():
                Segment.objects.filter(transcript=before).delete()
                self.rows[job_id].pk = before.pk
                self.rows[job_id].save(force_update=True)
            Transcript.objects.bulk_create([row for row in self.rows.values() if row.pk is None])
            Segment.objects.bulk_create(self.segments, batch_size=ROWS_PER_INSERT)
            Passage.objects.bulk_create(self.pieces, batch_size=ROWS_PER_INSERT)
        stored = self.known | self.rows
        return [stored[job_id] for job_id in self.job_ids]

    def _known(self, job_ids: Iterable[str]) -> dict[str, Transcript]:
        found = Transcript.objects.filter(owner=self.owner, job_id__in=list(job_ids))
        return {row.job_id: row for row in found}

    @staticmethod
    def _is_known(given: TranscriptIn, row: Transcript | None) -> bool:
        return row is not None and row.digest == given.digest


def _groups(transcripts: Iterable[TranscriptIn]) -> Iterator[list[TranscriptIn]]:
    group: list[TranscriptIn] = []
    n_segments = 0
    for transcript in transcripts:
        group.append(transcript)
        n_segments += len(transcript.segments)
        if n_segments >= GROUP_SEGMENTS:
            yield group
            group, n_segments = [], 0
    if group:
        yield group


def _give(pieces: list[Passage], vectors: embedding.Vectors | None) -> None:
    """None: there is no model or no time; until there is, the pieces are found by their words alone."""
    if vectors is None:
        return
    for piece, vector in zip(pieces, vectors, strict=True):
        piece.embedding = embedding.as_bytes(vector)
