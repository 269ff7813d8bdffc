"""Bodies of the memory endpoints -> typed objects; names and shapes are the RAG service's.

As everywhere: unknown fields are ignored, null stands for a field that is left out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rest_framework import serializers

from chat.rag.limits import (
    MAX_JOB_ID_CHARS,
    MAX_METADATA_CHARS,
    MAX_SEGMENTS,
    MAX_TEXT_CHARS,
    MAX_TITLE_CHARS,
)
from chat.rag.query import SourceFilters
from chat.rag.records import NoteIn, SegmentIn, TranscriptIn
from chat.rag.sources import MEMORY, SEGMENT
from chat.schemas import fields
from chat.schemas.chat_bodies import MAX_TOP_K, Body, FiltersBody, checked, source_filters
from chat.schemas.dates import IsoDate, first_moment, last_moment

DEFAULT_TOP_K = 5
DEFAULT_LIMIT = 10
MAX_QUERY_CHARS = 10_000
LONGEST_SECS = 1e9


class Words(fields.Text):
    """A text with something to read in it."""

    def to_internal_value(self, data: object) -> str:
        text = super().to_internal_value(data)
        if not text.strip():
            self.fail("blank")
        return text


class JsonObject(serializers.Field[Mapping[str, Any], Any, Any, Any]):
    default_error_messages = {
        "invalid": "must be a JSON object",
        "unstorable": "holds numbers or characters that cannot be stored, or is nested too deeply",
        "too_large": f"has more than {MAX_METADATA_CHARS} characters as JSON",
    }

    def to_internal_value(self, data: object) -> Mapping[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        if not fields.is_storable(data):
            self.fail("unstorable")
        if len(json.dumps(data, ensure_ascii=False)) > MAX_METADATA_CHARS:
            self.fail("too_large")
        return data

    def to_representation(self, value: object) -> object:
        return value


class SegmentBody(Body):
    text = Words(max_length=MAX_TEXT_CHARS)
    speaker = fields.Text(required=False, allow_blank=True, max_length=200)
    start_time = fields.Number(required=False, min_value=-LONGEST_SECS, max_value=LONGEST_SECS)
    end_time = fields.Number(required=False, min_value=-LONGEST_SECS, max_value=LONGEST_SECS)
    emotion = fields.Text(required=False, allow_blank=True, max_length=100)
    emotion_confidence = fields.Number(required=False)
    emotion_scores = JsonObject(required=False)
    audio_metrics = JsonObject(required=False)


class SegmentList(serializers.ListSerializer[Any]):
    default_error_messages = {"not_a_list": "must be a list of segments", "max_length": "at most {max_length} segments"}


class TranscriptBody(Body):
    job_id = Words(max_length=MAX_JOB_ID_CHARS)
    session_id = fields.Text(required=False, allow_blank=True, max_length=200)
    title = fields.Text(required=False, allow_blank=True, max_length=MAX_TITLE_CHARS)
    full_text = fields.Text(required=False, allow_blank=True)
    audio_duration = fields.Number(required=False, min_value=0, max_value=LONGEST_SECS)
    created_at = IsoDate(required=False, max_length=40)
    segments = SegmentList(child=SegmentBody(), max_length=MAX_SEGMENTS)


class NoteBody(Body):
    title = fields.Text(allow_blank=True, max_length=MAX_TITLE_CHARS)
    body = Words(max_length=MAX_TEXT_CHARS)
    metadata = JsonObject(required=False)


class SearchBody(FiltersBody):
    query = Words(max_length=MAX_QUERY_CHARS)
    top_k = fields.Integer(required=False, min_value=1, max_value=MAX_TOP_K)
    doc_type = fields.Choice(required=False, choices=[SEGMENT, MEMORY])


class NoteSearchBody(Body):
    query = Words(max_length=MAX_QUERY_CHARS)
    limit = fields.Integer(required=False, min_value=1, max_value=MAX_TOP_K)


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """``kind`` None: segments and notes."""

    query: str
    top_k: int = DEFAULT_TOP_K
    kind: str | None = None
    filters: SourceFilters = field(default_factory=SourceFilters)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which transcripts are counted."""

    speakers: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    last_n: int | None


# Each raises InvalidRequest with the path of the first wrong field.


def search_request(data: object) -> SearchRequest:
    given = checked(SearchBody(data=data))
    filters, kind = source_filters(given), given.pop("doc_type", None)
    return SearchRequest(**given, kind=kind, filters=filters)


def note_search_request(data: object) -> SearchRequest:
    given = checked(NoteSearchBody(data=data))
    return SearchRequest(query=given["query"], top_k=given.get("limit", DEFAULT_LIMIT), kind=MEMORY)


def count_request(data: object) -> Span:
    filters = source_filters(checked(FiltersBody(data=data)))
    start, end = first_moment(filters.start_date), last_moment(filters.end_date)
    return Span(speakers=filters.speakers, start=start, end=end, last_n=filters.last_n_transcripts)


def note_in(data: object) -> NoteIn:
    return NoteIn(**checked(NoteBody(data=data)))


def transcript_in(data: object) -> TranscriptIn:
    given = checked(TranscriptBody(data=data))
    recorded_at = first_moment(given.pop("created_at", None))
    segments = tuple(_segment_in(each) for each in given.pop("segments"))
    duration = given.pop("audio_duration", None)
    return TranscriptIn(**given, duration_secs=duration, recorded_at=recorded_at, segments=segments)


def _segment_in(given: dict[str, Any]) -> SegmentIn:
    start, end = given.pop("start_time", None), given.pop("end_time", None)
    return SegmentIn(**given, start_secs=start, end_secs=end)
