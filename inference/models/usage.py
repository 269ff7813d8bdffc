"""Tokens used by each owner and day."""

from datetime import date

from django.db import IntegrityError, models, transaction
from django.db.models import F


class DailyUsageQuerySet(models.QuerySet["DailyUsage"]):
    def add(self, *, owner: str, day: date, n_prompt_tokens: int, n_completion_tokens: int) -> None:
        """Add one generation to the row of its owner and day, in the caller's transaction."""
        sums = {
            "n_generations": F("n_generations") + 1,
            "n_prompt_tokens": F("n_prompt_tokens") + n_prompt_tokens,
            "n_completion_tokens": F("n_completion_tokens") + n_completion_tokens,
        }
        row = self.filter(owner=owner, day=day)
        if row.update(**sums):
            return
        try:
            with transaction.atomic():
                self.create(owner=owner, day=day)
        except IntegrityError:
            pass  # another worker has created it at the same moment
        row.update(**sums)


class DailyUsage(models.Model):
    """Generations of one owner that ended on one day (UTC). It remains when they are deleted."""

    owner = models.CharField(max_length=64)
    day = models.DateField()
    n_generations = models.PositiveIntegerField(default=0)
    n_prompt_tokens = models.PositiveBigIntegerField(default=0)
    n_completion_tokens = models.PositiveBigIntegerField(default=0)

    objects = DailyUsageQuerySet.as_manager()

    class Meta:
        ordering = ["-day", "owner"]
        verbose_name_plural = "daily usage"
        constraints = [models.UniqueConstraint(fields=["owner", "day"], name="daily_usage_owner_day")]

    def __str__(self) -> str:
        return f"{self.owner} {self.day}"

    @property
    def n_tokens(self) -> int:
        return self.n_prompt_tokens + self.n_completion_tokens
