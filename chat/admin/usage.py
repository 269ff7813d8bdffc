"""Admin of the usage of owners by day."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from chat.access.owners import owner_labels, owners_named
from chat.admin.common.read_only import ReadOnlyAdmin
from inference.models import DailyUsage


class UsageChangeList(ChangeList):
    """Sets ``listed_owner`` on every row of the page, with one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)
        labels = owner_labels(row.owner for row in rows)
        for row in rows:
            row.listed_owner = labels[row.owner]
        self.result_list = rows


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnlyAdmin):
    list_display = ("day_text", "owner_label", "generations", "prompt_tokens", "completion_tokens")
    list_filter = ("day",)
    search_fields = ("owner",)  # shows the field; see get_search_results
    search_help_text = "The name of a user, or the key of an owner."
    date_hierarchy = "day"
    fields = readonly_fields = list_display

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[ChangeList]:
        return UsageChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return queryset.filter(owner__in=[term, *owners_named(term)]) if term else queryset, False

    @admin.display(description="day (UTC)", ordering="day")
    def day_text(self, usage: DailyUsage) -> str:
        return usage.day.isoformat()

    @admin.display(description="owner", ordering="owner")
    def owner_label(self, usage: DailyUsage) -> str:
        return getattr(usage, "listed_owner", None) or owner_labels([usage.owner])[usage.owner]

    @admin.display(description="answers", ordering="n_generations")
    def generations(self, usage: DailyUsage) -> str:
        return f"{usage.n_generations:,}"

    @admin.display(description="tokens read", ordering="n_prompt_tokens")
    def prompt_tokens(self, usage: DailyUsage) -> str:
        return f"{usage.n_prompt_tokens:,}"

    @admin.display(description="tokens written", ordering="n_completion_tokens")
    def completion_tokens(self, usage: DailyUsage) -> str:
        return f"{usage.n_completion_tokens:,}"
