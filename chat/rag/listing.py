"""What there is to read: single memories, lists and counts, of what is the reader's own or everybody's."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q, QuerySet

from chat.rag.models import SHARED, Note, Passage, Segment, Transcript


@dataclass(frozen=True)
class StoreCounts:
    transcripts: int
    segments: int
    notes: int
    without_vector: int  # passages of all owners


def own_or_shared(owner: str) -> Q:
    return Q(owner__in=[owner, SHARED])


def notes_of(owner: str) -> QuerySet[Note]:
    """Newest first."""
    return Note.objects.filter(own_or_shared(owner))


def transcripts_of(owner: str) -> QuerySet[Transcript]:
    """Last recorded first."""
    return Transcript.objects.filter(own_or_shared(owner))


def segment_counts(transcripts: Iterable[Transcript]) -> dict[int, int]:
    """By the transcript's id; without an entry there are none."""
    lines = Segment.objects.filter(transcript__in=[each.pk for each in transcripts]).order_by()
    return dict(lines.values_list("transcript_id").annotate(Count("pk")))


def transcript_of(owner: str, job_id: str) -> Transcript | None:
    """One's own goes before the shared one of the same name."""
    return transcripts_of(owner).filter(job_id=job_id).order_by("-owner").first()


def note_of(owner: str, note_id: int) -> Note | None:
    return notes_of(owner).filter(pk=note_id).first()


def speakers_of(owner: str) -> list[str]:
    """In alphabetical order."""
    lines = Segment.objects.filter(transcript__owner__in=[owner, SHARED]).exclude(speaker="")
    return list(lines.order_by("speaker").values_list("speaker", flat=True).distinct())


def transcripts_between(
    owner: str, *, speakers: Iterable[str] = (), start: datetime | None = None, end: datetime | None = None
) -> QuerySet[Transcript]:
    """Transcripts in which one of ``speakers`` (all when empty) speaks, recorded between the moments."""
    found = Transcript.objects.filter(own_or_shared(owner))
    names = [name.casefold() for name in speakers]  # as passages keep them
    if names:
        found = found.filter(passages__speaker__in=names).distinct()
    if start:
        found = found.filter(created_at__gte=start)
    return found.filter(created_at__lte=end) if end else found


def counts(owner: str | None = None) -> StoreCounts:
    """Of what the owner may read; None: of all there is."""
    whose = Q() if owner is None else own_or_shared(owner)
    segments = Q() if owner is None else Q(transcript__owner__in=[owner, SHARED])
    return StoreCounts(
        transcripts=Transcript.objects.filter(whose).count(),
        segments=Segment.objects.filter(segments).count(),
        notes=Note.objects.filter(whose).count(),
        without_vector=Passage.objects.filter(embedding=None).count(),
    )
