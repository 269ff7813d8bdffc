"""The RAG service's queries over segments and their emotions, over the built-in store.

As the other routes of memories: services see the shared ones, users their own besides.
"""

from collections import defaultdict
from collections.abc import Iterable

from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from msgspec import Struct

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.memory_views import owner_of, search_memories, served
from chat.api.pagination import page_limit, page_offset
from chat.rag import listing, segments, statistics
from chat.rag.models import Segment
from chat.rag.query import SourceFilters
from chat.rag.sources import SEGMENT
from chat.rag.statistics import TimeRange
from chat.schemas.dates import first_moment, last_moment
from chat.schemas.memories.answers import segment_measures
from chat.schemas.memories.bodies import SearchRequest
from chat.schemas.stack import emotions, transcripts
from chat.schemas.stack.transcripts import SegmentItem, SegmentQuery

DEFAULT_MOMENTS = 20
N_MEASURED = 2_000  # newest segments that the means of speech are taken from


@served("POST")
def query_transcripts(request: HttpRequest, caller: Caller) -> Struct:
    """POST /transcripts/query"""
    query = transcripts.segment_query(read_object(request))
    items, total = chosen_segments(query, caller)
    n_seen = query.offset + len(items)
    return transcripts.SegmentQueryAnswer(
        items=items,
        count=len(items),
        total=total,
        has_more=n_seen < total,
        next_offset=n_seen,
        sort_by=query.sort_by,
        order=query.order,
    )


@served("GET")
def memory_emotions(request: HttpRequest, caller: Caller) -> Struct:
    """GET /memory/emotions/stats"""
    span = emotions.emotion_span(request.GET)
    utterances = listing.segments_between(
        owner_of(caller), start=first_moment(span.start_date), end=last_moment(span.end_date)
    )
    return emotions.memory_emotions(
        span, statistics.emotion_counts(utterances), statistics.emotions_by_time(utterances, "day")
    )


@served("GET")
def emotion_stats(request: HttpRequest, caller: Caller) -> Struct:
    """GET /emotions/stats"""
    period = emotions.period_choice(request.GET)
    utterances = listing.segments_between(owner_of(caller), start=emotions.period_start(period, timezone.localtime()))
    return emotions.emotion_stats(period, statistics.emotion_counts(utterances), _speech(_newest(utterances)))


@served("GET")
def emotion_analytics(request: HttpRequest, caller: Caller) -> Struct:
    """GET /emotions/analytics"""
    period = emotions.period_choice(request.GET)
    utterances = listing.segments_between(owner_of(caller), start=emotions.period_start(period, timezone.localtime()))
    newest, unit = _newest(utterances), emotions.UNITS[period]
    by_speaker: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in newest:
        by_speaker[segment.speaker].append(segment)
    return emotions.EmotionAnalyticsAnswer(
        summary=emotions.emotion_stats(period, statistics.emotion_counts(utterances), _speech(newest)),
        timeline=emotions.emotion_timeline(statistics.emotions_by_time(utterances, unit), unit),
        speakers=[
            emotions.speaker_emotions(name, counts, _speech(by_speaker.get(name, ())))
            for name, counts in statistics.emotions_by_speaker(utterances).items()
        ],
    )


@served("GET")
def emotion_moments(request: HttpRequest, caller: Caller) -> Struct:
    """GET /emotions/moments"""
    chosen = emotions.moment_filter(request.GET)
    limit, offset = page_limit(request.GET, DEFAULT_MOMENTS), page_offset(request.GET)
    utterances = listing.segments_between(
        owner_of(caller),
        speakers=[chosen.speaker] if chosen.speaker else (),
        emotions=[chosen.emotion] if chosen.emotion else (),
    ).select_related("transcript")
    newest = utterances.order_by("-said_at", F("emotion_confidence").desc(nulls_last=True), "-pk")
    moments = [emotions.moment_answer(segment) for segment in newest[offset : offset + limit]]
    return emotions.MomentsAnswer(moments=moments, count=len(moments))


@served("GET")
def time_range(request: HttpRequest, caller: Caller) -> Struct:
    """GET /debug/transcripts/time-range"""
    owner = owner_of(caller)
    recordings, utterances = statistics.transcript_range(owner), statistics.segment_range(owner)
    return transcripts.TimeRangeAnswer(
        transcript_count=recordings.count,
        segment_count=utterances.count,
        transcript_range=_as_range(recordings),
        segment_range=_as_range(utterances),
        updated_at=timezone.now().isoformat(),
    )


def chosen_segments(query: SegmentQuery, caller: Caller) -> tuple[list[SegmentItem], int]:
    """Return a page of segments, and the number of all. Raises Unavailable."""
    return _found(query, caller) if query.is_semantic and query.keywords else _listed(query, owner_of(caller))


def _listed(query: SegmentQuery, owner: str) -> tuple[list[SegmentItem], int]:
    span = query.span
    utterances = listing.segments_between(
        owner, speakers=span.speakers, emotions=span.emotions, start=span.start, end=span.end, last_n=span.last_n
    )
    utterances = segments.with_keywords(utterances, query.keywords, needs_all=query.needs_all)
    ordered = segments.in_order(utterances, query.sort_by, is_descending=query.order == "desc").select_related(
        "transcript"
    )
    rows = ordered[query.offset : query.offset + query.limit]
    return [
        transcripts.segment_item(row, segments.lines_around(row, query.n_lines)) for row in rows
    ], utterances.count()


def _found(query: SegmentQuery, caller: Caller) -> tuple[list[SegmentItem], int]:
    """Return the segments that are nearest in meaning, in the order of the query. Raises Unavailable."""
    span = query.span
    filters = SourceFilters(
        speakers=span.speakers,
        start_date=span.start.isoformat() if span.start else None,
        end_date=span.end.isoformat() if span.end else None,
        last_n_transcripts=span.last_n,
        bias_emotions=span.emotions,
    )
    search = SearchRequest(query=", ".join(query.keywords), top_k=query.limit, kind=SEGMENT, filters=filters)
    scores = {int(source.doc_id): source.score for source in search_memories(search, caller).sources}
    rows = segments.in_order(
        Segment.objects.filter(pk__in=scores), query.sort_by, is_descending=query.order == "desc"
    ).select_related("transcript")
    items = [
        transcripts.segment_item(row, segments.lines_around(row, query.n_lines), scores[row.pk])
        for row in rows[query.offset :]
    ]
    return items, len(scores)


def _as_range(times: TimeRange) -> transcripts.MomentRange:
    return transcripts.MomentRange(
        start=times.start.isoformat() if times.start else None, end=times.end.isoformat() if times.end else None
    )


def _newest(utterances: QuerySet[Segment]) -> list[Segment]:
    return list(utterances.order_by("-said_at", "-pk")[:N_MEASURED])


def _speech(spoken: Iterable[Segment]) -> emotions.SpeechMetrics:
    return emotions.speech_metrics(segment_measures(segment, None) for segment in spoken)
