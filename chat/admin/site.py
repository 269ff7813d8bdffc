"""The operators' pages: conversations to read, answers and what they were given to look through.

What the machine made is read-only here; titles may be changed, and the actions call services.
"""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import ModelAdmin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from chat.access.owners import owners_named
from chat.admin.actions import ConversationPages, say_cancelled, say_refused
from chat.admin.changelists import (
    ConversationChangeList,
    ConversationSums,
    conversation_link,
    conversation_sums,
    heading_of,
    owner_of,
    parameters_text,
    shortened,
    sums_of,
)
from chat.admin.conversation_view import (
    bubble,
    bubbles,
    device_text,
    duration_text,
    readable,
    retrieval_view,
    summaries_context,
    total_ms,
    transcript_page,
)
from chat.admin.filters import (
    DeviceFilter,
    FinishReasonFilter,
    OwnerFilter,
    RetrievalOutcomeFilter,
    SourcesFilter,
    StatusFilter,
)
from chat.errors import ChatError
from chat.local_time import moment_text
from chat.models import Conversation, Message, Retrieval
from chat.services import operations

if TYPE_CHECKING:
    AnyModelAdmin = ModelAdmin[Any]
else:
    AnyModelAdmin = ModelAdmin  # takes no type arguments when it runs

admin.site.site_header = "Gemma Service"
admin.site.site_title = "Gemma Service"
admin.site.index_title = "Operations"
# Their pages show refresh tokens, with which whoever looks could act as their users.
admin.site.unregister([OutstandingToken, BlacklistedToken])
admin.site.site_url = None  # there are no pages beside the admin
# The index lists the few tables there are; the room is the conversations'.
admin.site.enable_nav_sidebar = False


class ReadOnlyAdmin(AnyModelAdmin):
    """Rows that only the service writes: to be looked at."""

    actions_on_bottom = False
    list_per_page = 50
    # Counting the whole table a second time costs seconds once it is large, and says little.
    show_full_result_count = False

    class Media:
        css = {"all": ["chat/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def page_context(self, request: HttpRequest, shown: Any) -> dict[str, object]:  # noqa: ANN401  (each its own model)
        """What the page of one object needs besides the form."""
        return {}

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Model | None = None,
    ) -> HttpResponse:
        context |= self.page_context(request, obj)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Who may stop answers that are being made."""
        return request.user.has_perm(f"chat.change_{self.opts.model_name}")


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
    search_fields = ("title", "messages__content", "messages__generation__text")
    search_help_text = "Words of a title, message, answer or user name, or the id of a conversation or answer."
    readonly_fields = ("owner_label", "id", "created_at", "updated_at", "totals", "system_prompt", "strategy")
    fieldsets = (
        (None, {"fields": ("title", "owner_label", "totals", ("created_at", "updated_at"), "id")}),
        ("System prompt and strategy", {"fields": ("system_prompt", "strategy"), "classes": ("collapse",)}),
    )
    actions = ("cancel_answers",)

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
        """Besides the search fields: a pasted id (logs name those), and the names of users."""
        if exact := _as_uuid(search_term):
            inside = Message.objects.filter(Q(pk=exact) | Q(generation=exact), conversation=OuterRef("pk"))
            return queryset.filter(Q(pk=exact) | Exists(inside)), False
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if owners := owners_named(search_term) if search_term.strip() else []:
            found |= queryset.filter(owner__in=owners)
        return found, may_have_duplicates

    def page_context(self, request: HttpRequest, shown: Conversation) -> dict[str, object]:
        page = transcript_page(shown, request.GET.get("page"))
        return {
            "page": page,
            "bubbles": bubbles(page.object_list),
            "has_unfinished": shown.messages.unfinished().exists(),
            "may_cancel": self.has_cancel_permission(request),
            **summaries_context(shown),
        }

    def save_model(self, request: HttpRequest, obj: Conversation, form: "ModelForm[Any]", change: bool) -> None:
        operations.rename_conversation(obj, obj.title)

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Sequence[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[Any, Any], set[str], list[Any]]:
        """The conversations and how much is in them, not a list of every message."""
        conversations = list(objs)
        sums = conversation_sums([conversation.pk for conversation in conversations])
        lines = [f"{found} ({sums.get(found.pk, ConversationSums()).n_messages} messages)" for found in conversations]
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
            say_refused(request, error)
            return HttpResponseRedirect(reverse("admin:chat_conversation_change", args=[object_id]))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except ChatError as error:
            say_refused(request, error)
            return HttpResponseRedirect(request.get_full_path())

    def delete_model(self, request: HttpRequest, obj: Conversation) -> None:
        operations.delete_conversations([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        operations.delete_conversations(queryset)

    @admin.action(
        description="Stop the answers being made in the selected %(verbose_name_plural)s", permissions=["cancel"]
    )
    def cancel_answers(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        say_cancelled(request, operations.messages_in(queryset))

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

    @admin.display(description="last activity", ordering="updated_at")
    def last_activity(self, conversation: Conversation) -> str:
        return moment_text(conversation.updated_at)

    @admin.display(description="state")
    def state(self, conversation: Conversation) -> str:
        return sums_of(conversation).state

    @admin.display(description="totals")
    def totals(self, conversation: Conversation) -> str:
        return conversation_sums([conversation.pk]).get(conversation.pk, ConversationSums()).as_text()


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    list_display = (
        "moment",
        "role",
        "excerpt",
        "in_conversation",
        "outcome",
        "tokens",
        "times",
        "device",
    )
    list_filter = ("role", "created_at", StatusFilter, FinishReasonFilter, DeviceFilter, SourcesFilter)
    search_fields = ("content", "generation__text", "generation__error_message", "conversation__title")
    ordering = ("-created_at",)
    fields = ("in_conversation", "parameters")
    actions = ("cancel_answers",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return readable(super().get_queryset(request).select_related("conversation"))

    def page_context(self, request: HttpRequest, shown: Message) -> dict[str, object]:
        return {"bubble": bubble(shown)}

    @admin.action(description="Stop the selected answers that are being made", permissions=["cancel"])
    def cancel_answers(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        say_cancelled(request, Message.objects.filter(pk__in=queryset.order_by().values("pk")))

    @admin.display(description="conversation", ordering="conversation__title")
    def in_conversation(self, message: Message) -> str:
        return conversation_link(message.conversation)

    @admin.display(description="text")
    def excerpt(self, message: Message) -> str:
        return shortened(message.text)

    @admin.display(description="outcome")
    def outcome(self, message: Message) -> str:
        generation = message.generation
        if generation is None:
            return ""
        why = generation.error_code or generation.finish_reason
        return f"{generation.status}: {why}" if why else generation.status

    @admin.display(description="when", ordering="created_at")
    def moment(self, message: Message) -> str:
        return moment_text(message.created_at, with_seconds=True)

    @admin.display(description="tokens in / out")
    def tokens(self, message: Message) -> str:
        generation = message.generation
        return f"{generation.n_prompt_tokens:,} / {generation.n_completion_tokens:,}" if generation else ""

    @admin.display(description="first token / answer")
    def times(self, message: Message) -> str:
        generation = message.generation
        if generation is None:
            return ""
        return f"{duration_text(generation.timings.get('first_token'))} / {duration_text(total_ms(generation))}"

    @admin.display(description="device")
    def device(self, message: Message) -> str:
        return device_text(message.generation.devices) if message.generation else ""

    @admin.display(description="parameters")
    def parameters(self, message: Message) -> str:
        return parameters_text(message.generation.params) if message.generation else "-"


@admin.register(Retrieval)
class RetrievalAdmin(ReadOnlyAdmin):
    list_display = ("moment", "excerpt", "in_conversation", "found", "n_sources", "latency", "error")
    list_filter = ("created_at", RetrievalOutcomeFilter)
    search_fields = ("query", "error", "message__conversation__title")
    search_help_text = "Words of a question, of an error, or of a conversation's title."
    fields = ("moment", "in_conversation", "answer")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request).select_related("message__conversation", "message__generation")
        return rows.defer("message__rendered", "message__generation__prompt", "message__generation__output")

    def page_context(self, request: HttpRequest, shown: Retrieval) -> dict[str, object]:
        return {"retrieval": retrieval_view(shown, shown.message.text)}

    @admin.display(description="conversation")
    def in_conversation(self, retrieval: Retrieval) -> str:
        return conversation_link(retrieval.message.conversation)

    @admin.display(description="when", ordering="created_at")
    def moment(self, retrieval: Retrieval) -> str:
        return moment_text(retrieval.created_at, with_seconds=True)

    @admin.display(description="answer")
    def answer(self, retrieval: Retrieval) -> str:
        return retrieval.message.text or "-"

    @admin.display(description="query")
    def excerpt(self, retrieval: Retrieval) -> str:
        return shortened(retrieval.query)

    @admin.display(description="found", ordering="n_hits")
    def found(self, retrieval: Retrieval) -> int:
        return retrieval.n_hits

    @admin.display(description="sources given")
    def n_sources(self, retrieval: Retrieval) -> int:
        return len(retrieval.sources)

    @admin.display(description="took", ordering="latency_ms")
    def latency(self, retrieval: Retrieval) -> str:
        return duration_text(retrieval.latency_ms)


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None
