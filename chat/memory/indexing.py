"""Brings memories in and takes them out, whole and in one transaction each; both indexes follow.

Knows no wire form; the callers have parsed and authorised.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from chat.memory import embedding, passages
from chat.memory.incoming import NoteIn, SegmentIn, TranscriptIn, finite, plain, plain_json, short
from chat.memory.models import Note, Passage, Segment, Transcript
from chat.memory.ordering import writing_in_order

# How much is embedded and stored together: enough to sort by length, little enough that an interruption costs little.
GROUP_SEGMENTS = 1_024
ROWS_PER_INSERT = 500


def index_transcript(*, owner: str, transcript: TranscriptIn) -> Transcript:
    """Store and index a recording; one with the same ``job_id`` is replaced, an equal one left as it is."""
    return next(index_transcripts(owner=owner, transcripts=[transcript]))


def index_transcripts(*, owner: str, transcripts: Iterable[TranscriptIn]) -> Iterator[Transcript]:
    """The same for many, lazily: each group is committed before its transcripts are yielded, in their order."""
    group: list[TranscriptIn] = []
    for transcript in transcripts:
        group.append(transcript)
        if sum(len(each.segments) for each in group) >= GROUP_SEGMENTS:
            yield from _index_group(owner, group)
            group = []
    if group:
        yield from _index_group(owner, group)


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


def add_notes(*, owner: str, notes: Iterable[NoteIn]) -> list[Note]:
    """Store and index notes; one with the ``key`` of an older one replaces it."""
    made = [_note(owner, note) for note in notes]
    pieces = [piece for note in made for piece in passages.of_note(note)]
    _embed(pieces)
    keys = [note.key for note in made if note.key]
    with writing_in_order():
        Note.objects.filter(owner=owner, key__in=keys).delete()
        Note.objects.bulk_create(made, batch_size=ROWS_PER_INSERT)
        Passage.objects.bulk_create(pieces, batch_size=ROWS_PER_INSERT)
    return made


def delete_transcript(*, owner: str, job_id: str) -> bool:
    """Whether there was one. Answers that cite it keep their own copy of what they were shown."""
    with transaction.atomic():
        return bool(Transcript.objects.filter(owner=owner, job_id=job_id).delete()[0])


def delete_note(*, owner: str, note_id: int) -> bool:
    """Whether there was one."""
    with transaction.atomic():
        return bool(Note.objects.filter(owner=owner, pk=note_id).delete()[0])


def _index_group(owner: str, group: list[TranscriptIn]) -> list[Transcript]:
    wanted = {each.job_id: each for each in group}  # of two with the same name the later counts
    known = _known(owner, wanted)
    new = [each for job_id, each in wanted.items() if job_id not in known or known[job_id].digest != each.digest]
    rows = {each.job_id: _transcript(owner, each) for each in new}
    segments = {each.job_id: list(_segments(rows[each.job_id], each)) for each in new}
    pieces = [p for each in segments.values() for one in each for p in passages.of_segment(one, owner=owner)]
    _embed(pieces)
    with writing_in_order():
        for job_id, before in _known(owner, rows).items():
            Segment.objects.filter(transcript=before).delete()
            rows[job_id].pk = before.pk
            rows[job_id].save(force_update=True)
        Transcript.objects.bulk_create([row for row in rows.values() if row.pk is None])
        Segment.objects.bulk_create([one for each in segments.values() for one in each], batch_size=ROWS_PER_INSERT)
        Passage.objects.bulk_create(pieces, batch_size=ROWS_PER_INSERT)
    return [(known | rows)[each.job_id] for each in group]


def _known(owner: str, job_ids: Iterable[str]) -> dict[str, Transcript]:
    return {row.job_id: row for row in Transcript.objects.filter(owner=owner, job_id__in=list(job_ids))}


def _embed(pieces: list[Passage]) -> None:
    vectors = embedding.embed([piece.text for piece in pieces])
    if vectors is None:
        return
    for piece, vector in zip(pieces, vectors, strict=True):
        piece.embedding = embedding.as_bytes(vector)


def _transcript(owner: str, given: TranscriptIn) -> Transcript:
    return Transcript(
        owner=owner,
        job_id=given.job_id,
        session_id=short(given.session_id),
        title=short(given.title, 300),
        full_text=plain(given.full_text),
        duration_secs=finite(given.duration_secs),
        digest=given.digest,
        created_at=given.recorded_at or timezone.now(),
    )


def _segments(transcript: Transcript, given: TranscriptIn) -> Iterator[Segment]:
    for position, each in enumerate(given.segments):
        text = plain(each.text).strip()
        if text:
            yield _segment(transcript, position, each, text)


def _segment(transcript: Transcript, position: int, given: SegmentIn, text: str) -> Segment:
    start = finite(given.start_secs)
    return Segment(
        transcript=transcript,
        position=position,
        text=text,
        speaker=short(given.speaker),
        start_secs=start,
        end_secs=finite(given.end_secs),
        emotion=short(given.emotion, 100),
        emotion_confidence=finite(given.emotion_confidence),
        emotion_scores=plain_json(given.emotion_scores),
        audio_metrics=plain_json(given.audio_metrics),
        said_at=given.said_at or _after(transcript.created_at, start or 0.0),
    )


def _after(moment: datetime, secs: float) -> datetime:
    try:
        return moment + timedelta(seconds=secs)
    except OverflowError:  # a start of thousands of years is no time
        return moment


def _note(owner: str, given: NoteIn) -> Note:
    return Note(
        owner=owner,
        key=short(given.key),
        title=short(given.title, 300),
        body=plain(given.body).strip(),
        metadata=plain_json(given.metadata),
        created_at=given.created_at or timezone.now(),
    )
