"""Adds and deletes memories, each whole and in one transaction; the text and vector indexes follow.

Knows no wire form; callers have parsed and authorised.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from chat.rag.indexing import chunking
from chat.rag.indexing.purging import purge_note, purge_transcript
from chat.rag.indexing.row_builders import note_row, segment_rows, transcript_row
from chat.rag.models import Note, Passage, Segment, Transcript
from chat.rag.records import NoteIn, TranscriptIn
from chat.rag.vectors import embedding
from chat.rag.vectors.encodings import active_encoding, discard_outdated, encoder_input
from chat.rag.vectors.index import prune_changes
from chat.rag.vectors.ordering import serialised_insert
from chat.transactions import one_transaction

# Segments embedded and stored together: enough to batch by length, few enough that an interruption loses little.
GROUP_SEGMENTS = 1_024
ROWS_PER_INSERT = 500
# A request waits for the embedding of at most this much text (about 2 s); the backfill embeds longer ones.
MAX_INLINE_CHARS = 10_000


def is_long_to_embed(texts: Iterable[str]) -> bool:
    """Tell whether a request should leave the embedding of ``texts`` to the backfill."""
    return sum(map(len, texts)) > MAX_INLINE_CHARS


def index_transcript(*, owner: str, transcript: TranscriptIn, defer_embedding: bool = False) -> Transcript:
    """Store and index a recording; replace one with the same ``job_id``, keep an identical one."""
    return next(index_transcripts(owner=owner, transcripts=[transcript], defer_embedding=defer_embedding))


def index_transcripts(
    *, owner: str, transcripts: Iterable[TranscriptIn], defer_embedding: bool = False
) -> Iterator[Transcript]:
    """Index lazily: each group is committed before its transcripts are yielded, in input order."""
    previous: _Group | None = None
    for group_transcripts in _groups(transcripts):
        # The next group is embedded in the background while the previous one is written.
        group = _Group(owner, group_transcripts, defer_embedding=defer_embedding)
        if previous:
            yield from previous.store()
        previous = group
    if previous:
        yield from previous.store()


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
    """Store and index notes; one with the ``key`` of an older one replaces it, also within ``notes``."""
    by_key = {note.key or id(note): note for note in [note_row(owner, note) for note in notes]}
    rows = list(by_key.values())
    passages = [passage for note in rows for passage in chunking.note_passages(note)]
    encoding = active_encoding()
    if not defer_embedding:
        inputs = [encoder_input(passage, encoding) for passage in passages]
        _set_embeddings(passages, embedding.embed_passages(inputs, encoding))
    _store_notes(owner, rows, passages, encoding)
    return rows


@one_transaction
def _store_notes(owner: str, rows: list[Note], passages: list[Passage], encoding: str) -> None:
    with serialised_insert():
        discard_outdated(passages, encoding)
        Note.objects.filter(owner=owner, key__in=[note.key for note in rows if note.key]).delete()
        Note.objects.bulk_create(rows, batch_size=ROWS_PER_INSERT)
        Passage.objects.bulk_create(passages, batch_size=ROWS_PER_INSERT)


@one_transaction
def delete_transcript(*, owner: str, job_id: str) -> bool:
    """Delete a transcript and return whether it existed; answers that cite it keep their copy of the source."""
    prune_changes()
    transcript = Transcript.objects.filter(owner=owner, job_id=job_id).first()
    if transcript is None:
        return False
    purge_transcript(transcript.pk, list(transcript.segments.values_list("pk", flat=True)))
    transcript.delete()
    return True


@one_transaction
def delete_note(*, owner: str, note_id: int) -> bool:
    """Delete a note and return whether it existed."""
    prune_changes()
    if not Note.objects.filter(owner=owner, pk=note_id).delete()[0]:
        return False
    purge_note(note_id)
    return True


class _Group:
    """Transcripts that are embedded and stored together; of two with the same job id the later one counts."""

    def __init__(self, owner: str, transcripts: list[TranscriptIn], *, defer_embedding: bool) -> None:
        self.owner = owner
        self.job_ids = [transcript.job_id for transcript in transcripts]
        by_job = {transcript.job_id: transcript for transcript in transcripts}
        self.stored = self._stored(by_job)
        digests = {job_id: row.digest for job_id, row in self.stored.items()}
        changed = [t for job_id, t in by_job.items() if digests.get(job_id) != t.digest]
        self.rows = {t.job_id: transcript_row(owner, t, self.stored.get(t.job_id)) for t in changed}
        self.segments: list[Segment] = []
        self.passages: list[Passage] = []
        for transcript in changed:
            row = self.rows[transcript.job_id]
            segments = list(segment_rows(row, transcript))
            self.segments += segments
            self.passages += chunking.recording_passages(segments, owner=owner)
        self.encoding = active_encoding()
        inputs = [encoder_input(passage, self.encoding) for passage in self.passages]
        self.vectors = None if defer_embedding else embedding.embed_passages_in_background(inputs, self.encoding)

    def store(self) -> list[Transcript]:
        if self.vectors:
            _set_embeddings(self.passages, self.vectors.result())
        self._insert()
        by_job = self.stored | self.rows
        return [by_job[job_id] for job_id in self.job_ids]

    @one_transaction
    def _insert(self) -> None:
        with serialised_insert():
            discard_outdated(self.passages, self.encoding)
            # Queried again inside the transaction: another process may have stored one of them meanwhile.
            stored = self._stored(self.rows)
            for job_id, previous in stored.items():
                Segment.objects.filter(transcript=previous).delete()
                self.rows[job_id].pk = previous.pk
                self.rows[job_id].save(force_update=True)
            # Not those without an id: after a first attempt that was rolled back all have one.
            Transcript.objects.bulk_create([row for job_id, row in self.rows.items() if job_id not in stored])
            Segment.objects.bulk_create(self.segments, batch_size=ROWS_PER_INSERT)
            Passage.objects.bulk_create(self.passages, batch_size=ROWS_PER_INSERT)

    def _stored(self, job_ids: Iterable[str]) -> dict[str, Transcript]:
        rows = Transcript.objects.filter(owner=self.owner, job_id__in=list(job_ids))
        return {row.job_id: row for row in rows}


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


def _set_embeddings(passages: list[Passage], vectors: embedding.Vectors | None) -> None:
    """Set the vectors; without a model there are none, and words find the passages until the backfill embeds them."""
    if vectors is None:
        return
    for passage, vector in zip(passages, vectors, strict=True):
        passage.embedding = embedding.as_bytes(vector)
