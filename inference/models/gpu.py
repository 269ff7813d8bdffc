"""The tables of the GPU: the ledger of the current lease (one row, authoritative), ended leases, sessions at an outside
coordinator, and the history of hand-overs.

The lease's epoch must never go back, and Redis may be wiped at any time: therefore it is stored here.
"""

from django.db import models


class LedgerState(models.TextChoices):
    """State of the lease; the comments name the move into each."""

    FREE = "free"  # initially; after the resume was published
    PAUSING = "pausing"  # a request is granted: epoch + 1, residents are being paused
    HELD = "held"  # all residents have reported that the GPU is free, or there were none
    RESUMING = "resuming"  # released, expired, refused or reset: the resume is about to be published


class LedgerQuerySet(models.QuerySet["GpuLedger"]):
    """Conditional updates, each with at most one winner."""

    def current(self) -> "GpuLedger":
        """The only row, created when it is missing."""
        row, _ = self.get_or_create(pk=1)
        return row

    def move(self, expected: "GpuLedger", to: LedgerState, **changes: object) -> bool:
        """Change the row if epoch and state are as expected; False when another process moved it first."""
        rows = self.filter(pk=1, epoch=expected.epoch, state=expected.state)
        return rows.update(state=to, **changes) == 1


class GpuLedger(models.Model):
    """``epoch`` numbers the grants. ``is_emptied``: a pause was published and no resume yet."""

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


class LeaseRecord(models.Model):
    """A lease of the built-in coordinator that has ended, of any tenant; ``acquired_at``: when the GPU was its own."""

    lease_epoch = models.PositiveBigIntegerField()
    requester = models.CharField(max_length=64)
    acquired_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        ordering = ["-ended_at"]
        indexes = [models.Index(fields=["-ended_at"], name="lease_record_ended")]

    def __str__(self) -> str:
        return f"{self.requester}, {self.acquired_at:%Y-%m-%d %H:%M:%S}"


class OutsideSession(models.Model):
    """A session that an outside coordinator was asked for and whose release is not confirmed; written before the call.

    ``owner``: the process that answers for it, as ``records.outside_sessions`` names it; empty: any process.
    ``beat`` counts up while that process runs. ``releasing_at``: when its release was sent, by the
    database's clock, while it is not known whether the coordinator has taken it.
    """

    session_id = models.CharField(max_length=128, primary_key=True)
    owner = models.CharField(max_length=255, blank=True, default="")
    beat = models.PositiveBigIntegerField(default=0)
    requested_at = models.DateTimeField(auto_now_add=True)
    releasing_at = models.DateTimeField(null=True, default=None)

    class Meta:
        ordering = ["requested_at"]

    def __str__(self) -> str:
        return self.session_id


class HandOver(models.Model):
    """A session on the GPU; fields as in ``hand_over.HandOverRecord``."""

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
