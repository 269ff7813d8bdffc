"""Queries over stored memories that an owner may read: their own and the shared ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q, QuerySet

from chat.rag.models import SHARED, Note, Passage, Segment, Transcript
from inference.text_forms import composed


@dataclass(frozen=True)
class StoreCounts:
    """Numbers of stored rows that an owner may read."""

    transcripts: int
    segments: int
    notes: int
    without_vector: int  # passages of all owners


def own_or_shared(owner: str) -> Q:
    """Return the condition for rows that ``owner`` may read."""
    return Q(owner__in=[owner, SHARED])


def notes_of(owner: str) -> QuerySet[Note]:
    """Return readable notes, newest first."""
    return Note.objects.filter(own_or_shared(owner))


def transcripts_of(owner: str) -> QuerySet[Transcript]:
    """Return readable transcripts, most recently recorded first."""
    return Transcript.objects.filter(own_or_shared(owner))


def segment_counts(transcripts: Iterable[Transcript]) -> dict[int, int]:
    """Count segments by transcript id; a transcript without segments has no entry."""
    lines = Segment.objects.filter(transcript__in=[transcript.pk for transcript in transcripts]).order_by()
    return dict(lines.values_list("transcript_id").annotate(Count("pk")))


def transcript_of(owner: str, job_id: str) -> Transcript | None:
    """Return the transcript with this job id; the owner's own takes precedence over a shared one."""
    return transcripts_of(owner).filter(job_id=job_id).order_by("-owner").first()


def note_of(owner: str, note_id: int) -> Note | None:
    return notes_of(owner).filter(pk=note_id).first()


def speakers_of(owner: str) -> list[str]:
    """Return the names of all speakers, sorted."""
    lines = Segment.objects.filter(transcript__owner__in=[owner, SHARED]).exclude(speaker="")
    return list(lines.order_by("speaker").values_list("speaker", flat=True).distinct())


def transcripts_between(
    owner: str, *, speakers: Iterable[str] = (), start: datetime | None = None, end: datetime | None = None
) -> QuerySet[Transcript]:
    """Return transcripts recorded from ``start`` to ``end`` in which one of ``speakers`` (any when empty) speaks."""
    transcripts = Transcript.objects.filter(own_or_shared(owner))
    names = _as_stored(speakers)
    if names:
        transcripts = transcripts.filter(passages__speaker__in=names).distinct()
    if start:
        transcripts = transcripts.filter(created_at__gte=start)
    return transcripts.filter(created_at__lte=end) if end else transcripts


def segments_between(
    owner: str,
    *,
    speakers: Iterable[str] = (),
    emotions: Iterable[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    last_n: int | None = None,
) -> QuerySet[Segment]:
    """Return segments said from ``start`` to ``end`` by one of ``speakers`` with one of ``emotions`` (any when empty),
    of the ``last_n`` transcripts (all when None)."""
    segments = Segment.objects.filter(transcript__owner__in=[owner, SHARED])
    if names := _as_stored(speakers):
        segments = segments.filter(passages__speaker__in=names).distinct()
    if labels := [emotion.lower() for emotion in emotions]:
        segments = segments.filter(passages__emotion__in=labels).distinct()
    if start:
        segments = segments.filter(said_at__gte=start)
    if end:
        segments = segments.filter(said_at__lte=end)
    if last_n is not None:
        newest = list(transcripts_of(owner).values_list("pk", flat=True)[:last_n])
        segments = segments.filter(transcript__in=newest)
    return segments


def previous_segments(segments: Iterable[Segment]) -> dict[int, Segment]:
    """Return by a segment's id the one before it in its recording; a first one has no entry."""
    by_place = {(segment.transcript_id, segment.position - 1): segment.pk for segment in segments}
    places = Q(pk__in=())
    for transcript_id, position in by_place:
        places |= Q(transcript=transcript_id, position=position)
    return {by_place[row.transcript_id, row.position]: row for row in Segment.objects.filter(places)}


def counts(owner: str | None = None) -> StoreCounts:
    """Count the rows that ``owner`` may read; all rows when None."""
    readable = Q() if owner is None else own_or_shared(owner)
    segments = Q() if owner is None else Q(transcript__owner__in=[owner, SHARED])
    return StoreCounts(
        transcripts=Transcript.objects.filter(readable).count(),
        segments=Segment.objects.filter(segments).count(),
        notes=Note.objects.filter(readable).count(),
        without_vector=Passage.objects.filter(embedding=None).count(),
    )


def _as_stored(speakers: Iterable[str]) -> list[str]:
    """Return the names as passages have them."""
    return [composed(name).casefold() for name in speakers]
