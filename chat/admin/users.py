"""The operators' pages of users: Django's own, but that a user goes together with what belongs to him."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from chat.access.callers import Caller
from chat.admin.actions import show_refusal
from chat.admin.common.formatting import counted
from chat.errors import ChatError
from chat.models import Conversation
from chat.services.accounts.bulk_deletion import MOST_AT_ONCE, request_deletion
from chat.services.accounts.user_export import export_user
from chat.services.accounts.users import belongings_of, delete_user, remove_user_alone

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    _UserAdmin = UserAdmin[User]
else:
    _UserAdmin = UserAdmin  # takes no type arguments when it runs

admin.site.unregister(get_user_model())


@admin.register(get_user_model())
class OwnerAdmin(_UserAdmin):
    actions = ("export_data",)

    def has_export_permission(self, request: HttpRequest) -> bool:
        """An export holds private memories, for which no single permission stands."""
        return bool(request.user.is_active and request.user.is_superuser)

    @admin.action(description="Export all that belongs to the selected user", permissions=["export"])
    def export_data(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        users = list(queryset)
        if len(users) != 1:
            messages.error(request, "Select one user: an export is one file.")
            return None
        self.log_change(request, users[0], "Exported all data.")
        response = HttpResponse("".join(export_user(users[0])), content_type="application/json")
        response["Content-Disposition"] = 'attachment; filename="account.json"'
        response["Cache-Control"] = "no-store"
        return response

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Sequence[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[Any, Any], set[str], list[Any]]:
        """Beside what Django finds: conversations and memories name their owner by a key, and are not found by it."""
        users = list(objs)
        lines, counts, perms_needed, protected = super().get_deleted_objects(users, request)
        for user in users:
            owned = belongings_of(user)
            conversations = counted(owned.n_conversations, "conversation")
            memories = f"{counted(owned.n_transcripts, 'transcript')} and {counted(owned.n_notes, 'note')}"
            lines.append(f"{user} has {conversations}, {memories}")
            for name, n_owned in (
                ("conversations", owned.n_conversations),
                ("transcripts", owned.n_transcripts),
                ("notes", owned.n_notes),
            ):
                if n_owned:
                    counts[name] = counts.get(name, 0) + n_owned
        return lines, counts, perms_needed, protected

    def delete_model(self, request: HttpRequest, obj: Any) -> None:  # noqa: ANN401  (whatever the user model is)
        """Delete the user with all rows or, as the operator has chosen, without. Many rows go in the background."""
        if request.POST.get("belongings") == "keep":
            remove_user_alone(obj)
            return
        ids = list(Conversation.objects.of(Caller.of_user(obj).key).values_list("pk", flat=True))
        if len(ids) <= MOST_AT_ONCE:
            delete_user(obj)
            return
        # Nobody works with the account while its rows go, one after the other.
        obj.is_active = False
        obj.save(update_fields=["is_active"])
        request_deletion(conversation_ids=ids, requested_by=request.user.get_username(), user_id=obj.pk)
        messages.warning(
            request,
            f"{obj} cannot sign in any more. {len(ids):,} conversations are deleted in the background, then the user: "
            "see the deletions of conversations.",
        )

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for user in queryset:
            self.delete_model(request, user)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except ChatError as error:
            show_refusal(request, error)
            return HttpResponseRedirect(request.get_full_path())
