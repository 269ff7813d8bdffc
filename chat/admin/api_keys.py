"""Admin of API keys: who has which, and revoking them. Users make their own, since a key is shown once."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from chat.access.api_keys import revoke_key
from chat.admin.common.formatting import counted
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.local_time import moment_text
from chat.models import ApiKey


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("name", "prefix", "user", "scope_names", "state", "expires", "last_use")
    list_filter = ("revoked_at", "expires_at", "created_at")
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "user__username")
    search_help_text = "A key's name or beginning, or the name of its user."
    fields = ("name", "prefix", "user", "scope_names", "state", "created_at", "expires", "last_use", "revoked_at")
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("chat.change_apikey")

    @admin.action(description="Revoke the selected API keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        revoked = [key for key in queryset if revoke_key(key)]
        for key in revoked:
            self.log_change(request, key, "Revoked.")
        messages.success(request, f"{counted(len(revoked), 'API key')} revoked.")

    @admin.display(description="scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(sorted(key.permissions)) or "-"

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        return key.state.value

    @admin.display(description="expires", ordering="expires_at")
    def expires(self, key: ApiKey) -> str:
        return moment_text(key.expires_at)

    @admin.display(description="last used", ordering="last_used_at")
    def last_use(self, key: ApiKey) -> str:
        return moment_text(key.last_used_at) if key.last_used_at else "-"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("digest")
