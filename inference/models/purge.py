"""Deletions whose tokens are still to be removed from outside the database."""

from django.db import models


class PurgeRequest(models.Model):
    """A deletion, written in its own transaction, so that a worker that is away or killed purges it at its next start.

    ``tags`` own KV states (``kv_cache/purging``), ``generation_ids`` token logs; neither names the deleted content. Any
    worker sets the three times, one after the other. A row is kept for some time after that: every worker removes the
    states of its own runners, and refuses late states of these owners.
    """

    reason = models.CharField(max_length=20)  # conversation | memory
    tags = models.JSONField(default=list)
    generation_ids = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    states_at = models.DateTimeField(null=True, blank=True)  # no KV state is left: cells, RAM, tmpfs, disk
    logs_at = models.DateTimeField(null=True, blank=True)  # no token log is left in Redis
    storage_at = models.DateTimeField(null=True, blank=True)  # database and append-only file were rewritten

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["storage_at", "created_at"], name="purge_request_pending")]

    def __str__(self) -> str:
        return f"{self.reason} {self.pk}: {self.stage}"

    @property
    def stage(self) -> str:
        """Name of the first missing step, or ``done``."""
        for name in ("states", "logs", "storage"):
            if getattr(self, f"{name}_at") is None:
                return name
        return "done"
