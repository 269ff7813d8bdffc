"""Numbers about stored segments: how often each emotion was recognised, and the time that recordings cover."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from django.db.models import Count, Max, Min, QuerySet
from django.db.models.functions import Trunc
from django.utils import timezone

from chat.rag import listing
from chat.rag.models import Segment

TimeUnit = Literal["hour", "day", "month"]


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


def emotions_by_time(segments: QuerySet[Segment], unit: TimeUnit) -> dict[datetime, Counter[str]]:
    """Count segments by emotion and the beginning of their hour, day or month in GEMMA_TIME_ZONE, the first first."""
    times: dict[datetime, Counter[str]] = {}
    by_time = segments.annotate(time=Trunc("said_at", unit, tzinfo=timezone.get_default_timezone()))
    rows = by_time.order_by("time").values_list("time", "emotion").annotate(Count("pk", distinct=True))
    for time, emotion, n_segments in rows:
        times.setdefault(time, Counter())[emotion.lower()] += n_segments
    return times


def emotions_by_speaker(segments: QuerySet[Segment]) -> dict[str, Counter[str]]:
    """Count segments by speaker and emotion, the one with the most segments first."""
    speakers: dict[str, Counter[str]] = {}
    rows = segments.order_by().values_list("speaker", "emotion").annotate(Count("pk", distinct=True))
    for speaker, emotion, n_segments in rows:
        speakers.setdefault(speaker, Counter())[emotion.lower()] += n_segments
    return dict(sorted(speakers.items(), key=lambda item: (-item[1].total(), item[0])))


def transcript_range(owner: str) -> TimeRange:
    """Return the time of the recordings that ``owner`` may read."""
    return TimeRange(
        **listing.transcripts_of(owner).aggregate(count=Count("pk"), start=Min("created_at"), end=Max("created_at"))
    )


def segment_range(owner: str) -> TimeRange:
    """Return the time of the segments that ``owner`` may read."""
    segments = listing.segments_between(owner)
    return TimeRange(**segments.aggregate(count=Count("pk"), start=Min("said_at"), end=Max("said_at")))
