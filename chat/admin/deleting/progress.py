"""Admin of deletions in the background: which there were, and how far they are."""

from django.contrib import admin
from django.http import HttpRequest

from chat.access.owners import owner_labels
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.local_time import moment_text
from chat.models import BulkDeletion


@admin.register(BulkDeletion)
class BulkDeletionAdmin(ReadOnlyAdmin):
    list_display = ("moment", "requested_by", "user", "progress", "ended")
    fields = ("moment", "requested_by", "user", "progress", "ended")
    readonly_fields = fields
    ordering = ("-pk",)

    def page_context(self, request: HttpRequest, obj: BulkDeletion) -> dict[str, object]:
        return {"is_running": obj.ended_at is None}

    @admin.display(description="requested", ordering="created_at")
    def moment(self, row: BulkDeletion) -> str:
        return moment_text(row.created_at, with_seconds=True)

    @admin.display(description="user to be deleted")
    def user(self, row: BulkDeletion) -> str:
        return owner_labels([f"user:{row.user_id}"])[f"user:{row.user_id}"] if row.user_id else "-"

    @admin.display(description="deleted")
    def progress(self, row: BulkDeletion) -> str:
        return f"{row.n_done:,} of {row.n_total:,}"

    @admin.display(description="ended")
    def ended(self, row: BulkDeletion) -> str:
        return moment_text(row.ended_at, with_seconds=True) if row.ended_at else "under way"
