"""Row filters, applied before any ranking: owner, kind, speakers, dates and recent transcripts."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

import numpy as np
from django.db import connection

from chat.rag.models import SHARED
from chat.rag.query import RetrievalQuery
from chat.rag.search.calendar_spans import DateSpan
from chat.rag.vectors.snapshot import Mask, VectorSnapshot
from chat.rag.words import bare

RECENT_TRANSCRIPTS = (
    "SELECT id FROM memory_transcript WHERE owner IN (%s, %s) ORDER BY created_at DESC, id DESC LIMIT %s"
)


LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)  # leaves room for an addition in every zone


class FilterError(Exception):
    """An invalid filter; the text names it and may be shown to users."""


def allowed_rows(snapshot: VectorSnapshot, query: RetrievalQuery) -> Mask:
    """Return the rows that ``query`` may retrieve. Raises FilterError."""
    filters = query.filters
    allowed = snapshot.columns.is_alive & snapshot.has("owner", {SHARED, query.owner or SHARED})
    if query.kind is not None:
        allowed &= snapshot.has("kind", [query.kind])
    if filters.speakers:
        # Accents and their forms in Unicode are written differently by recognisers and callers.
        names = {bare(name).strip() for name in filters.speakers}
        allowed &= snapshot.has("speaker", [text for text in snapshot.codes.by_text if bare(text) in names])
    zone = query.now.tzinfo or UTC
    if filters.start_date is not None:
        allowed &= snapshot.columns.said_at >= _moment("start_date", filters.start_date, zone).timestamp()
    if filters.end_date is not None:
        allowed &= snapshot.columns.said_at < _end("end_date", filters.end_date, zone).timestamp()
    if filters.last_n_transcripts is not None:
        n_transcripts = max(0, min(filters.last_n_transcripts, 1_000_000))
        with connection.cursor() as cursor:
            cursor.execute(RECENT_TRANSCRIPTS, [SHARED, query.owner or SHARED, n_transcripts])
            recent = [row[0] for row in cursor.fetchall()]
        allowed &= np.isin(snapshot.columns.transcript, recent)
    return allowed


def in_span(snapshot: VectorSnapshot, span: DateSpan, zone: tzinfo) -> Mask:
    """Return the rows said on the days of ``span`` in ``zone``."""
    inside = np.ones(len(snapshot), np.bool_)
    if span.start:
        inside &= snapshot.columns.said_at >= _midnight(span.start, zone).timestamp()
    if span.end:
        inside &= snapshot.columns.said_at < _midnight(_next(span.end), zone).timestamp()
    return inside


def _moment(name: str, text: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise FilterError(f"{name}={text[:100]!r} is not an ISO 8601 date") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _end(name: str, text: str, zone: tzinfo) -> datetime:
    """Return the exclusive upper bound; a date without a time includes the whole day."""
    moment = _moment(name, text, zone)
    try:
        date.fromisoformat(text.strip())
    except ValueError:
        return min(moment, LAST) + timedelta(microseconds=1)
    return _midnight(_next(moment.date()), zone)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone)


def _next(day: date) -> date:
    return day + timedelta(days=1) if day < date.max else day
