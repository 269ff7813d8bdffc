"""Numbers about stored segments: how often each emotion was recognised, and the time that recordings cover."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime

from django.db.models import Count, Max, Min, QuerySet
from django.db.models.functions import TruncDate
from django.utils import timezone

from chat.rag import listing
from chat.rag.models import Segment


@dataclass(frozen=True)
class TimeRange:
    """First and last moment, None without rows."""

    count: int
    start: datetime | None
    end: datetime | None


def emotion_counts(segments: QuerySet[Segment]) -> Counter[str]:
    """Count segments by emotion in lower case; those without one under the empty name."""
    counts: Counter[str] = Counter()
    for emotion, n_segments in segments.order_by().values_list("emotion").annotate(Count("pk", distinct=True)):
        counts[emotion.lower()] += n_segments
    return counts


def emotions_by_day(segments: QuerySet[Segment]) -> dict[date, Counter[str]]:
    """Count segments with an emotion by day, in the time zone of GEMMA_TIME_ZONE, the first day first."""
    days: dict[date, Counter[str]] = {}
    by_day = segments.exclude(emotion="").annotate(day=TruncDate("said_at", tzinfo=timezone.get_default_timezone()))
    rows = by_day.order_by("day").values_list("day", "emotion").annotate(Count("pk", distinct=True))
    for day, emotion, n_segments in rows:
        days.setdefault(day, Counter())[emotion.lower()] += n_segments
    return days


def transcript_range(owner: str) -> TimeRange:
    """Return the time of the recordings that ``owner`` may read."""
    return TimeRange(
        **listing.transcripts_of(owner).aggregate(count=Count("pk"), start=Min("created_at"), end=Max("created_at"))
    )


def segment_range(owner: str) -> TimeRange:
    """Return the time of the segments that ``owner`` may read."""
    segments = listing.segments_between(owner)
    return TimeRange(**segments.aggregate(count=Count("pk"), start=Min("said_at"), end=Max("said_at")))
