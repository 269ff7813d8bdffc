"""Lists of the front page: sources and speakers that answers cite most, questions without a hit, tokens of users.

Rollups hold ids alone: names are those of the rows that still exist.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Sum
from django.urls import reverse
from django.utils import timezone

from chat.access.owners import owner_labels
from chat.admin.common.formatting import shortened
from chat.local_time import moment_text
from chat.models import Retrieval
from chat.rag.models import Note, Segment
from chat.rag.sources import MEMORY, SEGMENT
from chat.services.rollups.figures import largest
from chat.services.rollups.reading import PeriodSums
from inference.models import DailyUsage

LINES = 10
N_RESOLVED = 400  # of the most cited passages, whose names are looked up


@dataclass(frozen=True)
class RankedLine:
    text: str
    value: str
    address: str = ""


@dataclass(frozen=True)
class CitedSources:
    """The most cited recordings and notes, and the speakers of the cited lines."""

    titles: list[RankedLine]
    speakers: list[RankedLine]


def cited_sources(cited: Mapping[str, float]) -> CitedSources:
    """Name the passages by what is stored here; those of another service have no names here."""
    if settings.RAG_SERVICE_URL:
        return CitedSources(_ranked(cited, {}), [])
    numbers = largest(cited, N_RESOLVED)
    titles: dict[str, float] = {}
    speakers: dict[str, float] = {}
    addresses: dict[str, str] = {}
    segments = Segment.objects.filter(pk__in=_ids(numbers, SEGMENT)).select_related("transcript")
    for segment in segments.defer("transcript__full_text"):
        n_cited = numbers[f"{SEGMENT}:{segment.pk}"]
        title = str(segment.transcript)
        titles[title] = titles.get(title, 0) + n_cited
        addresses[title] = reverse("admin:memory_transcript_change", args=[segment.transcript_id])
        if segment.speaker:
            speakers[segment.speaker] = speakers.get(segment.speaker, 0) + n_cited
    for note in Note.objects.filter(pk__in=_ids(numbers, MEMORY)):
        title = str(note)
        titles[title] = titles.get(title, 0) + numbers[f"{MEMORY}:{note.pk}"]
        addresses[title] = reverse("admin:memory_note_change", args=[note.pk])
    return CitedSources(_ranked(titles, addresses), _ranked(speakers, {}))


def unanswered(empty_ids: Iterable[str]) -> list[RankedLine]:
    """Return the last questions for which the search found nothing, with a link to each search."""
    newest = sorted(map(int, empty_ids), reverse=True)[:LINES]
    rows = Retrieval.objects.filter(pk__in=newest).order_by("-pk").only("query", "created_at")
    return [
        RankedLine(
            shortened(row.query) or "-",
            moment_text(row.created_at),
            reverse("admin:chat_retrieval_change", args=[row.pk]),
        )
        for row in rows
    ]


def users(sums: PeriodSums) -> list[RankedLine]:
    """Return the owners with the most tokens; days are those of UTC."""
    first_day = min(sums.steps[0].starts_at, timezone.now() - timedelta(days=1)).date()
    rows = (
        DailyUsage.objects.filter(day__gte=first_day)
        .order_by()
        .values("owner")
        .annotate(n=Sum("n_prompt_tokens") + Sum("n_completion_tokens"))
        .order_by("-n")[:LINES]
    )
    tokens = {row["owner"]: row["n"] for row in rows}
    labels = owner_labels(tokens)
    return [RankedLine(labels[owner], f"{n:,}") for owner, n in tokens.items()]


def _ids(numbers: Mapping[str, float], kind: str) -> list[int]:
    ids = (name.removeprefix(f"{kind}:") for name in numbers if name.startswith(f"{kind}:"))
    return [int(number) for number in ids if number.isdecimal() and len(number) < 19]


def _ranked(numbers: Mapping[str, float], addresses: Mapping[str, str]) -> list[RankedLine]:
    best = largest(numbers, LINES)
    return [RankedLine(shortened(name), f"{n:,.0f}", addresses.get(name, "")) for name, n in best.items()]
