"""Admin of conversations: list with sums, page with all messages, cancel, rename and delete."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import URLPattern, reverse

from chat.access.owners import owners_named
from chat.admin.actions import ConversationPages, cancel_answers, exported_lines, show_refusal
from chat.admin.common.changelists import (
    ConversationChangeList,
    ConversationSums,
    conversation_sums,
    heading_of,
    owner_of,
    sums_of,
)
from chat.admin.common.folded_search import search_parts
from chat.admin.common.formatting import duration_text
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.admin.conversation_view import bubbles, summaries_context, transcript_page
from chat.admin.deleting.confirmation import confirm_deletion, delete_confirmed
from chat.admin.filters import DeviceFilter, OwnerFilter, SourcesFilter, StatusFilter
from chat.errors import ChatError
from chat.local_time import moment_text
from chat.models import Conversation, Message
from chat.services import operations


@admin.register(Conversation)
class ConversationAdmin(ReadOnlyAdmin):
    list_display = (
        "heading",
        "state",
        "owner_label",
        "last_activity",
        "n_messages",
        "tokens",
        "mean_times",
    )
    list_filter = (OwnerFilter, "updated_at", StatusFilter, DeviceFilter, SourcesFilter)
    search_fields = ("title",)  # shows the field; see get_search_results
    search_help_text = "Words of a title, message, answer or user name, or the id of a conversation or answer."
    readonly_fields = ("owner_label", "id", "begun", "last_activity", "totals", "system_prompt", "strategy", "recall")
    fieldsets = (
        (None, {"fields": ("title", "owner_label", "totals", ("begun", "last_activity"), "id")}),
        ("System prompt and strategy", {"fields": ("system_prompt", "strategy", "recall"), "classes": ("collapse",)}),
    )
    actions = ("cancel_answers", "export_lines", "delete_selected")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("chat.change_conversation")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("chat.delete_conversation")

    def get_urls(self) -> list[URLPattern]:
        return [*ConversationPages(self).urls(), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[ChangeList]:
        return ConversationChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by a pasted id, as logs contain it, and by user name in addition to the search fields."""
        exact_id: uuid.UUID | None = None
        with suppress(ValueError):
            exact_id = uuid.UUID(search_term.strip())
        # An id matches as a whole; it is not searched in every text.
        if exact_id:
            inside = Message.objects.filter(Q(pk=exact_id) | Q(generation=exact_id), conversation=OuterRef("pk"))
            return queryset.filter(Q(pk=exact_id) | Exists(inside)), False
        matches: Any = queryset
        for part in search_parts(search_term):
            matches = matches.search(part)
        # Owners are stored as keys, which no operator knows.
        if owners := owners_named(search_term) if search_term.strip() else []:
            matches |= queryset.filter(owner__in=owners)
        return matches, False

    def page_context(self, request: HttpRequest, obj: Conversation) -> dict[str, object]:
        page = transcript_page(obj, request.GET.get("page"))
        return {
            "page": page,
            "bubbles": bubbles(page.object_list),
            "has_unfinished": obj.messages.unfinished().exists(),
            "may_cancel": self.has_cancel_permission(request),
            **summaries_context(obj),
        }

    def save_model(self, request: HttpRequest, obj: Conversation, form: "ModelForm[Any]", change: bool) -> None:
        # Not obj.save(): it would write back columns that a running turn has changed since the page was loaded.
        operations.rename_conversation(obj, obj.title)

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Sequence[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[Any, Any], set[str], list[Any]]:
        """List the conversations with their message counts, not every message."""
        # Django's own list has a line for each message, summary and generation.
        conversations = list(objs)
        sums = conversation_sums([conversation.pk for conversation in conversations])
        lines = [f"{row} ({sums.get(row.pk, ConversationSums()).n_messages} messages)" for row in conversations]
        counts = {
            self.opts.verbose_name_plural: len(conversations),
            Message._meta.verbose_name_plural: sum(entry.n_messages for entry in sums.values()),
        }
        allowed = self.has_delete_permission(request)
        return lines, counts, set() if allowed else {str(self.opts.verbose_name)}, []

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except ChatError as error:
            show_refusal(request, error)
            return HttpResponseRedirect(reverse("admin:chat_conversation_change", args=[object_id]))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except ChatError as error:
            show_refusal(request, error)
            return HttpResponseRedirect(request.get_full_path())

    # By the service, which has KV states and token logs purged, too.
    def delete_model(self, request: HttpRequest, obj: Conversation) -> None:
        operations.delete_conversations([obj])

    @admin.action(description="Stop unfinished answers in the selected %(verbose_name_plural)s", permissions=["cancel"])
    def cancel_answers(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        cancel_answers(request, operations.messages_in(queryset))

    @admin.action(description="Export selected %(verbose_name_plural)s as JSON Lines", permissions=["view"])
    def export_lines(self, request: HttpRequest, queryset: QuerySet[Any]) -> StreamingHttpResponse:
        return exported_lines(queryset)

    @admin.action(description="Delete selected %(verbose_name_plural)s", permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        if request.POST.get("post"):
            return delete_confirmed(self, request, queryset)
        return confirm_deletion(self, request, queryset)

    @admin.display(description="conversation")
    def heading(self, conversation: Conversation) -> str:
        return heading_of(conversation)

    @admin.display(description="owner")
    def owner_label(self, conversation: Conversation) -> str:
        return owner_of(conversation)

    @admin.display(description="messages")
    def n_messages(self, conversation: Conversation) -> int:
        return sums_of(conversation).n_messages

    @admin.display(description="tokens in / out")
    def tokens(self, conversation: Conversation) -> str:
        sums = sums_of(conversation)
        return f"{sums.tokens_in:,} / {sums.tokens_out:,}"

    @admin.display(description="first token / answer")
    def mean_times(self, conversation: Conversation) -> str:
        sums = sums_of(conversation)
        return f"{duration_text(sums.mean_first_token_ms)} / {duration_text(sums.mean_total_ms)}"

    @admin.display(description="begun")
    def begun(self, conversation: Conversation) -> str:
        return moment_text(conversation.created_at, with_seconds=True)

    @admin.display(description="last activity", ordering="updated_at")
    def last_activity(self, conversation: Conversation) -> str:
        return moment_text(conversation.updated_at, with_seconds=True)

    @admin.display(description="state")
    def state(self, conversation: Conversation) -> str:
        return sums_of(conversation).state

    @admin.display(description="totals")
    def totals(self, conversation: Conversation) -> str:
        return conversation_sums([conversation.pk]).get(conversation.pk, ConversationSums()).as_text()
