"""Named queries and single-row moves of generations.

Every move is one conditional UPDATE whose count is checked, so that it holds with any number of processes. Knows
neither Redis nor Celery nor the engine.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, models, transaction
from django.db.models import Count, F, Min, OuterRef, Q, Subquery
from django.utils import timezone

from inference.enums import ENDED, WAITING, Priority, Status

if TYPE_CHECKING:
    from inference.models import Generation

log = logging.getLogger(__name__)

# A batch row that has waited this long is served like an interactive one, but only one per owner in this time: a long
# batch would otherwise be promoted as a whole, and its owner's own questions would wait behind it.
QUEUE_AGEING_SECS = 60.0


class GenerationQuerySet(models.QuerySet["Generation"]):
    """Queries, and moves that return whether they happened."""

    def waiting(self) -> "GenerationQuerySet":
        return self.filter(status__in=WAITING)

    def queued(self) -> "GenerationQuerySet":
        return self.filter(status=Status.QUEUED)

    def running(self) -> "GenerationQuerySet":
        return self.filter(status=Status.RUNNING)

    def interactive(self) -> "GenerationQuerySet":
        return self.filter(priority=Priority.INTERACTIVE)

    def batch(self) -> "GenerationQuerySet":
        return self.filter(priority=Priority.BATCH)

    def ended(self) -> "GenerationQuerySet":
        return self.filter(status__in=ENDED)

    def unfinished_of(self, owner: str) -> "GenerationQuerySet":
        return self.filter(owner=owner, status__in=[*WAITING, Status.RUNNING])

    def answers(self, dialogue_digest: str, text_digest: str) -> "GenerationQuerySet":
        """Filter the answers with this text to the last question of a dialogue."""
        return self.filter(dialogue_digest=dialogue_digest, text_digest=text_digest).order_by().only("pk")

    def last_answers(self, dialogue_digest: str, text_digest: str) -> "GenerationQuerySet":
        """Filter those that nothing follows, the newest first."""
        # SQLite takes NOT for no equality: it would not use the order of the index behind this column.
        rows = self.answers(dialogue_digest, text_digest).filter(dialogue_continued__in=[False])
        return rows.order_by("-created_at")

    # ---- the queue ----

    def ahead_of(self, queued_at: datetime, priority: int) -> "GenerationQuerySet":
        """Queued rows that are served before such a row; ignores fairness between owners and aged batch rows."""
        interactive, older = Q(priority=Priority.INTERACTIVE), Q(queued_at__lt=queued_at)
        if priority == Priority.INTERACTIVE:
            return self.queued().filter(interactive, older)
        return self.queued().filter(interactive | older)

    def claim_next(self, *, worker: str) -> "Generation | None":
        """Claim the next row by priority, fairness between owners and age; None when nothing waits."""
        if not self.queued().exists():  # most superfluous wake-up messages end here, without the write lock
            return None
        now = timezone.now()
        with transaction.atomic(using=self.db):
            row = self.next_row(now)
            if row is None:
                return None
            waited_ms = max(0.0, (now - (row.queued_at or now)).total_seconds() * 1000)
            claimed = self.filter(pk=row.pk, status=Status.QUEUED, claim_epoch=row.claim_epoch).update(
                status=Status.RUNNING,
                worker=worker,
                attempt=F("attempt") + 1,
                claim_epoch=F("claim_epoch") + 1,
                heartbeat=F("heartbeat") + 1,
                started_at=now,
                timings=row.timings or {"queue": round(waited_ms, 1)},
            )
            if claimed != 1:
                log.info("another worker claimed the row first generation=%s worker=%s", row.pk, worker)
                return None
        return self.get(pk=row.pk)

    def next_row(self, now: datetime) -> "Generation | None":
        """The row to claim next, locked on PostgreSQL; SQLite's immediate transaction keeps other writers out."""
        for tier in (self.first_tier(now), self.queued()):
            owner = tier.next_owner()
            if owner is None:
                continue
            # On PostgreSQL a simultaneous claim may have locked all rows of the fairest owner. Any other row is better
            # than none: the wake-up message is used up.
            return tier.filter(owner=owner).first_unlocked() or tier.first_unlocked()
        return None

    def first_tier(self, now: datetime) -> "GenerationQuerySet":
        """Interactive rows, and aged batch rows of owners without a batch row started lately."""
        then = now - timedelta(seconds=QUEUE_AGEING_SECS)
        aged = Q(priority=Priority.BATCH, queued_at__lte=then)
        owners = set(self.queued().filter(aged).values_list("owner", flat=True).distinct())
        if not owners:
            return self.queued().filter(priority=Priority.INTERACTIVE)
        started = self.model.objects.using(self.db).filter(priority=Priority.BATCH, started_at__gt=then)
        owners -= set(started.filter(owner__in=owners).values_list("owner", flat=True).distinct())
        return self.queued().filter(Q(priority=Priority.INTERACTIVE) | (aged & Q(owner__in=owners)))

    def next_owner(self) -> str | None:
        """The owner in this set with the fewest running rows, then served longest ago, then waiting longest."""
        of_owner = self.model.objects.using(self.db).filter(owner=OuterRef("owner"))
        n_running = of_owner.running().order_by().values("owner").annotate(n=Count("*")).values("n")
        last_served = of_owner.filter(started_at__isnull=False).order_by("-started_at").values("started_at")[:1]
        # Ordered by the subqueries without selecting them: selected, they would be part of the GROUP BY and run for
        # every row.
        owners = (
            self.order_by()
            .values("owner")
            .annotate(oldest=Min("queued_at"))
            .order_by(
                Subquery(n_running).asc(nulls_first=True),  # NULL: none is running
                Subquery(last_served).asc(nulls_first=True),  # NULL: never served
                "oldest",
                "owner",
            )
        )
        row = owners.first()
        return row["owner"] if row else None

    def first_unlocked(self) -> "Generation | None":
        rows = self.order_by("queued_at", "pk").only("pk", "claim_epoch", "queued_at", "timings")
        if connections[self.db].features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True)
        return rows.first()

    # ---- claims ----

    def with_claim(self, *, generation_id: UUID, epoch: int) -> "GenerationQuerySet":
        """The row, if the claim of this epoch still holds."""
        return self.filter(pk=generation_id, status=Status.RUNNING, claim_epoch=epoch)

    def advance_heartbeats(self, *, worker: str, generation_ids: Sequence[UUID]) -> int:
        """Raise the counters of the rows that this worker has claimed and is computing."""
        rows = self.running().filter(worker=worker, pk__in=generation_ids)
        return rows.update(heartbeat=F("heartbeat") + 1)

    def release_claim(self, *, generation_id: UUID, epoch: int, counts_as_attempt: bool) -> bool:
        """Running -> queued by the owner of the claim; the row keeps its place in the queue."""
        attempt = F("attempt") if counts_as_attempt else F("attempt") - 1
        moved = self.with_claim(generation_id=generation_id, epoch=epoch).update(
            status=Status.QUEUED, worker="", claim_epoch=F("claim_epoch") + 1, attempt=attempt
        )
        return moved == 1

    def take_over(self, *, generation_id: UUID, epoch: int, heartbeat: int) -> bool:
        """Running -> queued without the owner, whose heartbeat counter stands still at ``heartbeat``."""
        moved = (
            self.with_claim(generation_id=generation_id, epoch=epoch)
            .filter(heartbeat=heartbeat)
            .update(status=Status.QUEUED, worker="", claim_epoch=F("claim_epoch") + 1)
        )
        return moved == 1

    def finish(self, *, generation_id: UUID, epoch: int, columns: dict[str, Any]) -> bool:
        """Running -> an ended status, by the owner of the claim; False when the claim is lost."""
        return self.with_claim(generation_id=generation_id, epoch=epoch).update(worker="", **columns) == 1

    # ---- the reaper ----

    def with_deadline(self) -> "GenerationQuerySet":
        """Unfinished rows that have a deadline."""
        return self.filter(status__in=[*WAITING, Status.RUNNING], deadline_at__isnull=False)

    def stuck_preparing(self, now: datetime, *, after_secs: float) -> "GenerationQuerySet":
        return self.filter(status=Status.PREPARING, created_at__lt=now - timedelta(seconds=after_secs))

    def deletable(self, now: datetime, *, after_secs: float) -> "GenerationQuerySet":
        """Ephemeral rows that ended ``after_secs`` ago and have no follow-up left."""
        past = now - timedelta(seconds=after_secs)
        return self.ended().filter(ephemeral=True, finished_at__lt=past, follow_up_task="")

    def ended_between(self, now: datetime, *, from_secs: float, to_secs: float) -> "GenerationQuerySet":
        """Rows that ended between ``from_secs`` and ``to_secs`` ago."""
        span = (now - timedelta(seconds=to_secs), now - timedelta(seconds=from_secs))
        # Both values of ``ephemeral``, so that the index over the two columns serves.
        return self.ended().filter(ephemeral__in=[True, False], finished_at__range=span)

    def to_follow_up(self) -> "GenerationQuerySet":
        """Ended rows whose follow-up task has not run."""
        return self.ended().exclude(follow_up_task="")

    def claim_follow_up(self, *, generation_id: UUID) -> bool:
        """Empty the outbox of an ended row; False when it is empty. Belongs into the transaction of the follow-up."""
        return self.to_follow_up().filter(pk=generation_id).update(follow_up_task="") == 1
