"""Admin of the usage of owners by day."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from inference.models import DailyUsage

if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[DailyUsage]
else:
    _Admin = admin.ModelAdmin  # takes no type arguments when it runs


@admin.register(DailyUsage)
class DailyUsageAdmin(_Admin):
    list_display = ("day", "owner", "n_generations", "n_prompt_tokens", "n_completion_tokens")
    list_filter = ("day",)
    search_fields = ("owner",)
    date_hierarchy = "day"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ANN401
        return False
