"""Admin pages of generations, read-only except for the action that cancels."""

from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from inference.errors import AlreadyEnded
from inference.models import Generation
from inference.queue import generations

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Generation]
else:  # not subscriptable when it runs
    _ModelAdmin = admin.ModelAdmin

HEAVY_COLUMNS = ("prompt", "output", "text_ends", "thought", "thought_ends", "logprobs", "details")


@admin.register(Generation)
class GenerationAdmin(_ModelAdmin):
    """Read-only: the service owns a generation's state. The action calls a service."""

    list_display = (
        "id",
        "owner",
        "status",
        "priority",
        "finish_reason",
        "error_code",
        "n_prompt_tokens",
        "n_cached_tokens",
        "n_completion_tokens",
        "device",
        "attempt",
        "created_at",
        "run_secs",
    )
    list_filter = ("status", "priority", "finish_reason", "error_code", "model_name", "created_at")
    search_fields = ("id", "owner", "session_id")
    date_hierarchy = "created_at"
    show_full_result_count = False
    actions = ["cancel"]
    fields = (
        "id",
        "owner",
        "status",
        "priority",
        "finish_reason",
        "error_code",
        "error_message",
        "text",
        "params",
        "usage",
        "timings",
        "devices",
        "model_name",
        "worker",
        "attempt",
        "claim_epoch",
        "heartbeat",
        "cancel_requested",
        "timeout_secs",
        "created_at",
        "queued_at",
        "deadline_at",
        "started_at",
        "finished_at",
    )
    readonly_fields = fields

    @admin.display(description="seconds")
    def run_secs(self, generation: Generation) -> str:
        if generation.started_at is None or generation.finished_at is None:
            return ""
        return f"{(generation.finished_at - generation.started_at).total_seconds():.1f}"

    @admin.action(description="Cancel the selected generations", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Generation]) -> None:
        n_cancelled = n_ended = 0
        for generation_id in queryset.values_list("pk", flat=True):
            try:
                generations.request_cancel(generation_id=generation_id)
                n_cancelled += 1
            except AlreadyEnded:
                n_ended += 1
        self.message_user(request, f"{n_cancelled} cancelled, {n_ended} had ended already", messages.INFO)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Generation]:
        # Large columns that no page shows.
        return super().get_queryset(request).defer(*HEAVY_COLUMNS)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """The permission of the action: cancelling is the only change possible here."""
        return request.user.has_perm("inference.change_generation")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Generation | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Generation | None = None) -> bool:
        return False
