"""Adding of newly completed rows to the sums of their hour and day, each exactly once.

A slice of time is read, then added in one transaction with a conditional update of the progress: of several processes
one adds a slice, and one that is killed has added all of it or nothing. After a time without any process the slices
follow from where the last one ended.
"""

import time
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Min, QuerySet
from django.utils import timezone

from chat.local_time import local
from chat.models import Message, Rollup, RollupProgress, Span
from chat.services.rollups.collecting import (
    CHAT,
    GENERATIONS,
    GPU,
    HOUR,
    RETRIEVALS,
    chat_figures,
    generation_figures,
    hand_over_figures,
    lease_figures,
    retrieval_figures,
)
from chat.services.rollups.figures import Figures, add, largest
from inference.models import Generation, HandOver, LeaseRecord

INTERVAL_SECS = 30.0
# A transaction may write the time of an end some moments before it commits.
SETTLE_SECS = 20.0
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
HAND_OVERS_AT_ONCE = 200
ROWS_AT_ONCE = 100
NAMED_GROUPS = ("sources", "empty_ids")

Place = tuple[Span, datetime, str]


def advance_all() -> None:
    """Add slice after slice until all rows are added, at half of a core's time at most."""
    began = time.monotonic()
    while advance(timezone.now()):
        time.sleep(time.monotonic() - began)
        began = time.monotonic()


def advance(now: datetime) -> bool:
    """Add the next slice, at most an hour; False when there is none."""
    progress, _ = RollupProgress.objects.get_or_create(pk=1)
    bounds = _next_slice(progress.until or BEGINNING, now - timedelta(seconds=SETTLE_SECS))
    hand_overs = list(HandOver.objects.filter(pk__gt=progress.hand_over_id).order_by("pk")[:HAND_OVERS_AT_ONCE])
    if bounds is None and not hand_overs:
        return False
    sums: dict[Place, Figures] = {}
    if bounds is not None:
        _add_slice(sums, *bounds)
    for (start, _end), figures in hand_over_figures(hand_overs):
        _add_at(sums, start, GPU, figures)
    unchanged = RollupProgress.objects.filter(pk=1, until=progress.until, hand_over_id=progress.hand_over_id)
    with transaction.atomic():
        is_ours = unchanged.update(
            until=bounds[1] if bounds else progress.until,
            hand_over_id=hand_overs[-1].pk if hand_overs else progress.hand_over_id,
        )
        # Another process has added the same slice otherwise.
        if is_ours:
            _store(sums)
    return True


def _next_slice(start: datetime, limit: datetime) -> tuple[datetime, datetime] | None:
    """Return the next time with rows, within one hour and before ``limit``; None when there are no rows."""
    firsts = [
        # SQLite takes NOT for no equality: it would not use the order of the index behind this column.
        _first(Generation.objects.filter(ephemeral__in=[False], finished_at__gte=start), "finished_at"),
        _first(Generation.objects.filter(ephemeral__in=[True], finished_at__gte=start), "finished_at"),
        _first(Message.objects.filter(created_at__gte=start), "created_at"),
        _first(LeaseRecord.objects.filter(ended_at__gte=start), "ended_at"),
    ]
    first = min((moment for moment in firsts if moment is not None), default=limit)
    if first >= limit:
        return None
    return first, min(limit, _hour_of(first) + HOUR)


def _first(rows: "QuerySet[Generation] | QuerySet[Message] | QuerySet[LeaseRecord]", column: str) -> datetime | None:
    moment: datetime | None = rows.order_by().aggregate(first=Min(column))["first"]
    return moment


def _add_slice(sums: dict[Place, Figures], start: datetime, end: datetime) -> None:
    _add_at(sums, start, GENERATIONS, generation_figures(start, end))
    _add_at(sums, start, CHAT, chat_figures(start, end))
    _add_at(sums, start, RETRIEVALS, retrieval_figures(start, end))
    for (held_from, _held_until), figures in lease_figures(start, end):
        _add_at(sums, held_from, GPU, figures)


def _add_at(sums: dict[Place, Figures], moment: datetime, kind: str, figures: Figures) -> None:
    if figures:
        day = local(moment).replace(hour=0, minute=0, second=0, microsecond=0)
        for span, start in ((Span.HOUR, _hour_of(moment)), (Span.DAY, day)):
            add(sums.setdefault((span, start, kind), {}), figures)


def _store(sums: dict[Place, Figures]) -> None:
    """Add the sums to the stored rows. Only the process that has moved the progress writes them."""
    starts = {starts_at for _, starts_at, _ in sums}
    rows = {(row.span, row.starts_at, row.kind): row for row in Rollup.objects.filter(starts_at__in=starts)}
    missing = [
        Rollup(span=span, starts_at=starts_at, kind=kind)
        for span, starts_at, kind in sums
        if (span, starts_at, kind) not in rows
    ]
    existing = [rows[place] for place in sums if place in rows]
    for row in (*missing, *existing):
        add(row.figures, sums[Span(row.span), row.starts_at, row.kind])
        for name in NAMED_GROUPS:
            if name in row.figures:
                row.figures[name] = largest(row.figures[name])
    Rollup.objects.bulk_create(missing)
    Rollup.objects.bulk_update(existing, ["figures"], batch_size=ROWS_AT_ONCE)


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
