"""Bodies of the memory endpoints, decoded into typed objects; names and shapes are the RAG service's.

As everywhere, unknown fields are ignored and null stands for a field that is left out.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from chat.rag.limits import (
    MAX_JOB_ID_CHARS,
    MAX_SEGMENTS,
    MAX_TEXT_CHARS,
    MAX_TITLE_CHARS,
)
from chat.rag.query import SourceFilters
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn
from chat.rag.sources import MEMORY
from chat.schemas.dates import IsoDate, check_date, check_span, first_moment, last_moment
from chat.schemas.decoding import FieldError, decode
from chat.schemas.filters import (
    MAX_TOP_K,
    Emotions,
    Name,
    Names,
    TopK,
    TranscriptCount,
    clamped,
    names_in,
    source_filters,
)
from chat.schemas.metadata import check_metadata
from chat.schemas.scalars import NonEmptyText, Number, Text
from inference.text_forms import is_visible

DEFAULT_TOP_K = 5
DEFAULT_LIMIT = 10
MAX_QUERY_CHARS = 10_000
LONGEST_SECS = 1e9

Query = Annotated[NonEmptyText, Meta(max_length=MAX_QUERY_CHARS)]
LongText = Annotated[NonEmptyText, Meta(max_length=MAX_TEXT_CHARS)]
Title = Annotated[Text, Meta(max_length=MAX_TITLE_CHARS)]
UtcDate = Annotated[
    Text, Meta(max_length=40, description="As the field without `_utc`, in UTC where it names no zone.")
]
Seconds = Annotated[float, Meta(ge=-LONGEST_SECS, le=LONGEST_SECS)]
Duration = Annotated[float, Meta(ge=0, le=LONGEST_SECS)]


class SegmentBody(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance; times are seconds into the recording. One without a visible character is skipped."""

    text: Annotated[Text, Meta(max_length=MAX_TEXT_CHARS)] | None = None
    speaker: Name | None = None
    start_time: Seconds | None = None
    end_time: Seconds | None = None
    emotion: Annotated[Text, Meta(max_length=100)] | None = None
    emotion_confidence: Number | None = None
    emotion_scores: dict[str, Any] | None = None
    audio_metrics: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_metadata("emotion_scores", self.emotion_scores or {})
        check_metadata("audio_metrics", self.audio_metrics or {})

    def as_segment(self) -> SegmentIn:
        return SegmentIn(
            text=self.text if self.text and is_visible(self.text) else "",
            speaker=self.speaker or "",
            start_secs=self.start_time,
            end_secs=self.end_time,
            emotion=self.emotion or "",
            emotion_confidence=self.emotion_confidence,
            emotion_scores=self.emotion_scores or {},
            audio_metrics=self.audio_metrics or {},
        )


class TranscriptBody(msgspec.Struct, frozen=True, kw_only=True):
    """A recording. ``created_at`` is its start; without it the recording ends now."""

    job_id: Annotated[NonEmptyText, Meta(max_length=MAX_JOB_ID_CHARS)]
    segments: Annotated[list[SegmentBody], Meta(max_length=MAX_SEGMENTS)]
    session_id: Name | None = None
    title: Title | None = None
    full_text: Text | None = None
    audio_duration: Duration | None = None
    created_at: IsoDate | None = None

    def __post_init__(self) -> None:
        _check_not_blank("job_id", self.job_id)
        check_date("created_at", self.created_at)


class NoteBody(msgspec.Struct, frozen=True, kw_only=True):
    """A note, which the RAG protocol calls a memory."""

    title: Title
    body: LongText
    metadata: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_not_blank("body", self.body)
        check_metadata("metadata", self.metadata or {})


class TranscriptFiltersBody(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of a search: what does not match them is not found."""

    speakers: Names | None = None
    start_date: IsoDate | None = None
    end_date: IsoDate | None = None
    last_n_transcripts: TranscriptCount | None = None
    bias_emotions: Emotions | None = None

    def __post_init__(self) -> None:
        check_span(self.start_date, self.end_date)


class CountBody(TranscriptFiltersBody, frozen=True, kw_only=True):
    """Segments to count; ``emotions`` are the only ones that count, and so are ``bias_emotions``."""

    emotions: Emotions | None = None
    start_date_utc: UtcDate | None = None
    end_date_utc: UtcDate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_date("start_date_utc", self.start_date_utc)
        check_date("end_date_utc", self.end_date_utc)


class SearchBody(TranscriptFiltersBody, frozen=True, kw_only=True):
    """A search over transcripts and notes."""

    query: Query
    top_k: TopK | None = None
    doc_type: Literal["transcript_segment", "memory", ""] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_not_blank("query", self.query)


class NoteSearchBody(msgspec.Struct, frozen=True, kw_only=True):
    """A search over notes alone."""

    query: Query
    limit: TopK | None = None

    def __post_init__(self) -> None:
        _check_not_blank("query", self.query)


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search; ``kind`` None stands for segments and notes."""

    query: str
    top_k: int = DEFAULT_TOP_K
    kind: str | None = None
    filters: SourceFilters = field(default_factory=SourceFilters)


@dataclass(frozen=True, kw_only=True)
class TranscriptSpan:
    """The transcripts to count, and their segments."""

    speakers: tuple[str, ...]
    emotions: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    last_n: int | None


# Each raises InvalidRequest with the path of the first wrong field.


def search_request(data: object) -> SearchRequest:
    body = decode(SearchBody, data)
    return SearchRequest(
        query=body.query,
        top_k=clamped(body.top_k, DEFAULT_TOP_K, MAX_TOP_K),
        kind=body.doc_type or None,
        filters=source_filters(body),
    )


def note_search_request(data: object) -> SearchRequest:
    body = decode(NoteSearchBody, data)
    return SearchRequest(query=body.query, top_k=clamped(body.limit, DEFAULT_LIMIT, MAX_TOP_K), kind=MEMORY)


def count_request(data: object) -> TranscriptSpan:
    return transcript_span(decode(CountBody, data))


def transcript_span(body: CountBody) -> TranscriptSpan:
    """Return the filters of a body; a time that is said to be UTC takes precedence."""
    filters = source_filters(body)
    return TranscriptSpan(
        speakers=filters.speakers,
        emotions=names_in(body.emotions) or filters.bias_emotions,
        start=first_moment(body.start_date_utc, UTC) or first_moment(filters.start_date),
        end=last_moment(body.end_date_utc, UTC) or last_moment(filters.end_date),
        last_n=filters.last_n_transcripts,
    )


def note_in(data: object) -> NoteIn:
    body = decode(NoteBody, data)
    return NoteIn(title=body.title, body=body.body, metadata=body.metadata or {})


def transcript_in(data: object) -> TranscriptIn:
    body = decode(TranscriptBody, data)
    return TranscriptIn(
        job_id=body.job_id,
        segments=tuple(segment.as_segment() for segment in body.segments),
        session_id=body.session_id or "",
        title=body.title or "",
        full_text=body.full_text or "",
        duration_secs=body.audio_duration,
        recorded_at=first_moment(body.created_at),
    )


def _check_not_blank(name: str, text: str) -> None:
    if not text.strip():
        raise FieldError(name, "must not be empty")
