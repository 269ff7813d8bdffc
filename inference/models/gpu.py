"""The tables of the card: who has it (one row, the truth), and every hand-over there was.

Redis may be wiped at any time, so that what must never go back, the lease's epoch, lies here.
"""

from django.db import models


class LedgerState(models.TextChoices):
    """How one gets there is said beside each."""

    FREE = "free"  # at first; after a resume was published
    PAUSING = "pausing"  # somebody's turn has come: epoch + 1, residents are being paused
    HELD = "held"  # the residents said that the card is free; or nobody was there to say it
    RESUMING = "resuming"  # released, expired, refused or reset: residents are about to be told


class LedgerQuerySet(models.QuerySet["GpuLedger"]):
    """Conditional updates, each with at most one winner."""

    def current(self) -> "GpuLedger":
        """The one row; made when somebody removed it."""
        row, _ = self.get_or_create(pk=1)
        return row

    def move(self, seen: "GpuLedger", to: LedgerState, **changes: object) -> bool:
        """Change the row if it is still as it was seen; False: another process got there first."""
        rows = self.filter(pk=1, epoch=seen.epoch, state=seen.state)
        return rows.update(state=to, **changes) == 1


class GpuLedger(models.Model):
    """``epoch`` numbers the grants. ``is_emptied``: the residents were told to pause and not yet to resume."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    epoch = models.PositiveBigIntegerField(default=0)
    state = models.CharField(max_length=8, choices=LedgerState.choices, default=LedgerState.FREE)
    session_id = models.CharField(max_length=128, blank=True, default="")
    requester = models.CharField(max_length=64, blank=True, default="")
    priority = models.PositiveSmallIntegerField(default=1)
    renews = models.BooleanField(default=False)
    is_emptied = models.BooleanField(default=False)
    acquired_at = models.DateTimeField(null=True, blank=True)

    objects = LedgerQuerySet.as_manager()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(pk=1), name="gpu_ledger_one_row")]

    def __str__(self) -> str:
        return f"{self.state} {self.requester} {self.epoch}".rstrip()

    @property
    def is_free(self) -> bool:
        return self.state == LedgerState.FREE


class HandOver(models.Model):
    """One stay on the card; fields as in ``hand_over.HandOverRecord``."""

    started_at = models.DateTimeField()
    device_from = models.CharField(max_length=16)
    device_to = models.CharField(max_length=16)
    waited_ms = models.FloatField()
    loaded_ms = models.FloatField(null=True, blank=True)
    moved_ms = models.FloatField(default=0.0)
    moved_bytes = models.PositiveBigIntegerField(default=0)
    n_sequences = models.PositiveIntegerField(default=0)
    n_snapshots = models.PositiveIntegerField(default=0)
    held_secs = models.FloatField(default=0.0)
    n_served = models.PositiveIntegerField(default=0)
    taken_secs = models.FloatField(default=0.0)
    yield_ms = models.FloatField(null=True, blank=True)
    ended_because = models.CharField(max_length=255)
    lease_epoch = models.PositiveBigIntegerField(default=0)
    coordinator = models.CharField(max_length=16, blank=True, default="")
    is_simulated = models.BooleanField(default=False)

    class Meta:
        ordering = ["-started_at"]
        verbose_name = "hand-over"
        indexes = [models.Index(fields=["-started_at"], name="hand_over_started")]

    def __str__(self) -> str:
        return f"{self.device_from} to {self.device_to}, {self.started_at:%Y-%m-%d %H:%M:%S}"
