"""Lists of segments: by keywords, in an order, with the lines around each. Ranks nothing by meaning."""

from collections.abc import Iterable

from django.db.models import F, Func, Q, QuerySet
from django.db.models.expressions import OrderBy
from django.db.models.functions import Coalesce, Lower

from chat.rag.models import Segment

# By the RAG service's names of orders.
ORDERS: dict[str, F | Func] = {
    "created_at": F("transcript__created_at"),
    "speaker": Lower("speaker"),
    "emotion": Lower("emotion"),
    "job_id": F("transcript__job_id"),
    "start_time": Coalesce("start_secs", 0.0),
}


def with_keywords(segments: QuerySet[Segment], keywords: Iterable[str], *, needs_all: bool) -> QuerySet[Segment]:
    """Return the segments whose text contains one of the keywords, or all of them; any without keywords."""
    condition = Q()
    for keyword in keywords:
        # SQLite ignores case in ASCII alone.
        forms = {keyword, keyword.lower(), keyword.upper(), keyword.capitalize()}
        contained = Q()
        for form in forms:
            contained |= Q(text__icontains=form)
        condition = condition & contained if needs_all else condition | contained
    return segments.filter(condition)


def in_order(segments: QuerySet[Segment], order: str, *, is_descending: bool) -> QuerySet[Segment]:
    """Sort by a name of ORDERS, then by position, the newest recording first."""
    key = OrderBy(ORDERS[order], descending=is_descending)
    return segments.order_by(key, "-transcript__created_at", "-transcript_id", "position")


def lines_around(segment: Segment, n_lines: int) -> tuple[list[Segment], list[Segment]]:
    """Return up to ``n_lines`` segments before and after one of the same recording, each in order."""
    if not n_lines:
        return [], []
    lines = Segment.objects.filter(transcript=segment.transcript_id)
    before = lines.filter(position__lt=segment.position).order_by("-position")[:n_lines]
    after = lines.filter(position__gt=segment.position).order_by("position")[:n_lines]
    return list(before)[::-1], list(after)
