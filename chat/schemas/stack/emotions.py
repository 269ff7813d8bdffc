"""Answers of the RAG service's statistics of emotions, and the parameters that they take."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from statistics import fmean
from typing import Annotated, Literal

from msgspec import Meta, Struct

from chat.rag.models import Segment
from chat.rag.statistics import TimeUnit
from chat.schemas.dates import IsoDate, check_span
from chat.schemas.decoding import decode
from chat.schemas.filters import Emotion, Name
from chat.schemas.memories.answers import SuccessAnswer

NEUTRAL = "neutral"  # of a segment without an emotion
ANY_EMOTION = "all"
JOY = "joy"
NEGATIVE = ("anger", "sadness", "fear", "disgust")
SHOWN = (JOY, "anger", "sadness", NEUTRAL)  # on every timeline, also where nobody felt them
MAX_SHOWN = 100  # emotions on a timeline, the most frequent ones: each has a number for every label
LABEL_CHARS: dict[TimeUnit, int] = {"hour": len("2026-03-01T10:00"), "day": len("2026-03-01"), "month": len("2026-03")}
UNITS: dict[str, TimeUnit] = {"today": "hour", "week": "day", "month": "day", "all": "month"}

Period = Literal["today", "week", "month", "all"]


class EmotionSpan(Struct, frozen=True, kw_only=True):
    start_date: IsoDate | None = None
    end_date: IsoDate | None = None

    def __post_init__(self) -> None:
        check_span(self.start_date, self.end_date)


class PeriodChoice(Struct, frozen=True, kw_only=True):
    period: Period = "today"


class MomentFilter(Struct, frozen=True, kw_only=True):
    emotion: Emotion = ""
    speaker: Name = ""


class EmotionCount(Struct, frozen=True, kw_only=True):
    emotion: str
    count: int


class DayCounts(Struct, frozen=True, kw_only=True):
    date: str
    counts: dict[str, int]


class MemoryEmotionsAnswer(SuccessAnswer, frozen=True, kw_only=True):
    """Counts of recognised emotions, the most frequent first, and by day."""

    start_date: str | None
    end_date: str | None
    total_analyzed: int
    emotions: list[EmotionCount]
    timeline: list[DayCounts]


class EmotionStatsAnswer(Struct, frozen=True, kw_only=True):
    """Emotions of a period; segments without one count as neutral. The means are those of the newest segments, and 0
    where nothing was measured."""

    period: Period
    total_analyzed: int
    joy_count: int
    negative_count: int
    emotion_totals: dict[str, int]
    avg_pace_wpm: Annotated[float, Meta(description="Words per minute.")]
    avg_pitch_mean: float


class EmotionTimeline(Struct, frozen=True, kw_only=True):
    """Counts by emotion, one for each label: an hour, a day or a month."""

    labels: list[str]
    emotions: dict[str, list[int]]


class SpeechMetrics(Struct, frozen=True, kw_only=True):
    """Means over the newest segments, 0 where nothing was measured."""

    pace_wpm: Annotated[float, Meta(description="Words per minute.")]
    pitch_mean: float


class SpeakerEmotions(Struct, frozen=True, kw_only=True):
    speaker: str
    segments: int
    dominant_emotion: str
    speech_metrics: SpeechMetrics


class EmotionAnalyticsAnswer(Struct, frozen=True, kw_only=True):
    """Emotions of a period, over time and by speaker."""

    summary: EmotionStatsAnswer
    timeline: EmotionTimeline
    speakers: list[SpeakerEmotions]


class MomentAnswer(Struct, frozen=True, kw_only=True):
    id: str
    timestamp: str
    speaker: str
    emotion: str
    text: str
    confidence: float
    start_time: float | None
    job_id: str


class MomentsAnswer(Struct, frozen=True, kw_only=True):
    """A page of segments, the latest first."""

    moments: list[MomentAnswer]
    count: int


# Each raises InvalidRequest with the name of the first wrong parameter.


def emotion_span(params: Mapping[str, str]) -> EmotionSpan:
    return decode(EmotionSpan, dict(params.items()))


def period_choice(params: Mapping[str, str]) -> Period:
    return decode(PeriodChoice, {name: value for name, value in params.items() if value}).period


def moment_filter(params: Mapping[str, str]) -> MomentFilter:
    chosen = decode(MomentFilter, dict(params.items()))
    return MomentFilter(speaker=chosen.speaker) if chosen.emotion.lower() == ANY_EMOTION else chosen


def period_start(period: Period, now: datetime) -> datetime | None:
    """Return the beginning of a period that ends now: of the day, or so many days ago; None for all time."""
    days = {"week": 7, "month": 30}
    if period == "today":
        return now.replace(hour=0, minute=0, second=0, microsecond=0)
    return now - timedelta(days=days[period]) if period in days else None


def memory_emotions(
    span: EmotionSpan, counts: Counter[str], days: Mapping[datetime, Counter[str]]
) -> MemoryEmotionsAnswer:
    named = _named(counts)
    return MemoryEmotionsAnswer(
        start_date=span.start_date or None,
        end_date=span.end_date or None,
        total_analyzed=named.total(),
        emotions=[EmotionCount(emotion=emotion, count=count) for emotion, count in named.most_common()],
        timeline=[
            DayCounts(date=day.date().isoformat(), counts=dict(_named(counter)))
            for day, counter in days.items()
            if _named(counter)
        ],
    )


def emotion_stats(period: Period, counts: Counter[str], speech: SpeechMetrics) -> EmotionStatsAnswer:
    totals = _with_neutral(counts)
    return EmotionStatsAnswer(
        period=period,
        total_analyzed=totals.total(),
        joy_count=totals[JOY],
        negative_count=sum(totals[emotion] for emotion in NEGATIVE),
        emotion_totals=dict(totals.most_common()),
        avg_pace_wpm=speech.pace_wpm,
        avg_pitch_mean=speech.pitch_mean,
    )


def emotion_timeline(times: Mapping[datetime, Counter[str]], unit: TimeUnit) -> EmotionTimeline:
    totals = {time: _with_neutral(counter) for time, counter in times.items()}
    counts: Counter[str] = Counter()
    for counter in totals.values():
        counts.update(counter)
    frequent = {emotion for emotion, _ in counts.most_common(MAX_SHOWN)}
    emotions = dict.fromkeys(SHOWN) | dict.fromkeys(emotion for emotion in counts if emotion in frequent)
    return EmotionTimeline(
        labels=[time.isoformat()[: LABEL_CHARS[unit]] for time in totals],
        emotions={emotion: [counter[emotion] for counter in totals.values()] for emotion in emotions},
    )


def speaker_emotions(speaker: str, counts: Counter[str], speech: SpeechMetrics) -> SpeakerEmotions:
    [(dominant, _)] = _with_neutral(counts).most_common(1)
    return SpeakerEmotions(speaker=speaker, segments=counts.total(), dominant_emotion=dominant, speech_metrics=speech)


def speech_metrics(measures: Iterable[Mapping[str, object]]) -> SpeechMetrics:
    """Return the means over the measures of some segments."""
    rows = list(measures)
    return SpeechMetrics(pace_wpm=_mean(rows, "pace_wpm"), pitch_mean=_mean(rows, "pitch_mean"))


def _named(counts: Counter[str]) -> Counter[str]:
    return Counter({emotion: count for emotion, count in counts.items() if emotion})


def _with_neutral(counts: Counter[str]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for emotion, count in counts.items():
        totals[emotion or NEUTRAL] += count
    return totals


def _mean(measures: Iterable[Mapping[str, object]], name: str) -> float:
    values = [measure.get(name) for measure in measures]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return round(fmean(numbers), 1) if numbers else 0.0


def moment_answer(segment: Segment) -> MomentAnswer:
    """Needs the transcript of the segment."""
    return MomentAnswer(
        id=str(segment.pk),
        timestamp=segment.said_at.isoformat(),
        speaker=segment.speaker,
        emotion=segment.emotion,
        text=segment.text,
        confidence=segment.emotion_confidence or 0.0,
        start_time=segment.start_secs,
        job_id=segment.transcript.job_id,
    )
