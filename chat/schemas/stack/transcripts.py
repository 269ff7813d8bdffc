"""Bodies and answers of the RAG service's queries over segments."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from chat.rag.models import Segment
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import Count, clamped
from chat.schemas.memories.answers import SuccessAnswer
from chat.schemas.memories.bodies import CountBody, TranscriptSpan, transcript_span
from chat.schemas.scalars import Text

DEFAULT_LIMIT, MAX_LIMIT = 20, 200
DEFAULT_LINES, MAX_LINES = 3, 10
MAX_OFFSET = 10**9
MAX_KEYWORDS = 50

Keyword = Annotated[Text, Meta(max_length=200)]
SortBy = Literal["created_at", "speaker", "emotion", "job_id", "start_time"]
Order = Literal["asc", "desc"]


class SegmentQueryBody(CountBody, frozen=True, kw_only=True):
    """A list of segments. ``keywords`` are a list, or one text with commas; ``search_type`` ``semantic`` finds them by
    meaning, and then ``limit`` segments are all."""

    keywords: (
        Annotated[Text, Meta(max_length=2000)] | Annotated[list[Keyword], Meta(max_length=MAX_KEYWORDS)] | None
    ) = None
    match: Literal["any", "all"] | None = None
    search_type: Literal["keyword", "segments", "semantic"] | None = None
    sort_by: SortBy | None = None
    order: Order | None = None
    limit: (
        Annotated[Count, Meta(description=f"0: {DEFAULT_LIMIT}; -1 and more than {MAX_LIMIT}: {MAX_LIMIT}.")] | None
    ) = None
    offset: Annotated[Count, Meta(description="Segments before the first one.")] | None = None
    context_lines: (
        Annotated[Count, Meta(description=f"Lines before and after each; -1: {MAX_LINES}, the most.")] | None
    ) = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if int(self.offset or 0) < 0:
            raise FieldError("offset", "must be at least 0")
        if len(_keywords(self.keywords)) > MAX_KEYWORDS:
            raise FieldError("keywords", f"must have at most {MAX_KEYWORDS} entries")


@dataclass(frozen=True, kw_only=True)
class SegmentQuery:
    """A query over segments; ``is_semantic``: ``keywords`` are a question."""

    span: TranscriptSpan
    keywords: tuple[str, ...]
    needs_all: bool
    is_semantic: bool
    sort_by: SortBy
    order: Order
    limit: int
    offset: int
    n_lines: int


class LineAnswer(Struct, frozen=True, kw_only=True):
    speaker: str
    text: str
    emotion: str


class SegmentItem(Struct, frozen=True, kw_only=True):
    """A segment with the lines around it; ``created_at`` is its own time, ``score`` that of a semantic query."""

    segment_id: str
    transcript_id: str
    job_id: str
    speaker: str
    emotion: str
    emotion_confidence: float | None
    text: str
    score: float | UnsetType | None = UNSET
    created_at: str
    start_time: float | None
    end_time: float | None
    context_before: list[LineAnswer]
    context_after: list[LineAnswer]


class SegmentQueryAnswer(SuccessAnswer, frozen=True, kw_only=True):
    """A page of segments; ``total`` is the number of all."""

    items: list[SegmentItem]
    count: int
    total: int
    has_more: bool
    next_offset: int
    sort_by: SortBy
    order: Order


class MomentRange(Struct, frozen=True, kw_only=True):
    start: str | None
    end: str | None


class TimeRangeAnswer(Struct, frozen=True, kw_only=True):
    """The time that the stored recordings cover, and their segments."""

    status: str = "ok"
    transcript_count: int
    segment_count: int
    transcript_range: MomentRange
    segment_range: MomentRange
    updated_at: str


def segment_query(data: object) -> SegmentQuery:
    """Return the typed query. Raises InvalidRequest with the field's path."""
    return segment_query_of(decode(SegmentQueryBody, data))


def segment_query_of(body: SegmentQueryBody) -> SegmentQuery:
    return SegmentQuery(
        span=transcript_span(body),
        keywords=_keywords(body.keywords),
        needs_all=body.match == "all",
        is_semantic=body.search_type == "semantic",
        sort_by=body.sort_by or "created_at",
        order=body.order or "desc",
        limit=clamped(body.limit, DEFAULT_LIMIT, MAX_LIMIT),
        offset=min(int(body.offset or 0), MAX_OFFSET),
        # No line is a size like others here; nothing and null stand for the default.
        n_lines=0 if body.context_lines in (0, "0") else clamped(body.context_lines, DEFAULT_LINES, MAX_LINES),
    )


def segment_item(
    segment: Segment, lines: tuple[list[Segment], list[Segment]], score: float | UnsetType | None = UNSET
) -> SegmentItem:
    """Return a segment, which needs its transcript loaded, with the lines before and after it."""
    before, after = lines
    return SegmentItem(
        segment_id=str(segment.pk),
        transcript_id=str(segment.transcript_id),
        job_id=segment.transcript.job_id,
        speaker=segment.speaker,
        emotion=segment.emotion,
        emotion_confidence=segment.emotion_confidence,
        text=segment.text,
        score=score,
        created_at=segment.said_at.isoformat(),
        start_time=segment.start_secs,
        end_time=segment.end_secs,
        context_before=_lines(before),
        context_after=_lines(after),
    )


def _lines(segments: Iterable[Segment]) -> list[LineAnswer]:
    return [LineAnswer(speaker=line.speaker, text=line.text, emotion=line.emotion) for line in segments]


def _keywords(value: str | list[str] | None) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value or ()
    return tuple(word.strip() for word in words if word.strip())
