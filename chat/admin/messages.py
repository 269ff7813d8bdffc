"""Admin of messages: list with outcome, tokens and times; page with the message as its conversation shows it."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from chat.admin.actions import cancel_answers
from chat.admin.common.changelists import conversation_link
from chat.admin.common.folded_search import search_parts
from chat.admin.common.formatting import device_text, duration_text, parameters_text, shortened, total_ms
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.admin.conversation_view import bubble, with_bubble_columns
from chat.admin.filters import DeviceFilter, FinishReasonFilter, SourcesFilter, StatusFilter
from chat.local_time import moment_text
from chat.models import Message


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
    search_fields = ("content",)  # shows the field; see get_search_results
    search_help_text = "Words of a message, an error or a conversation's title."
    ordering = ("-created_at",)
    fields = ("in_conversation", "parameters")
    actions = ("cancel_answers",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Without the columns that no page shows, such as the tokens.
        return with_bubble_columns(super().get_queryset(request).select_related("conversation"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        matches: Any = queryset
        for part in search_parts(search_term):
            matches = matches.search(part)
        return matches, False

    def page_context(self, request: HttpRequest, obj: Message) -> dict[str, object]:
        return {"bubble": bubble(obj)}

    @admin.action(description="Stop the selected unfinished answers", permissions=["cancel"])
    def cancel_answers(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        # A plain queryset: that of the list is ordered and has joins.
        cancel_answers(request, Message.objects.filter(pk__in=queryset.order_by().values("pk")))

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
        reason = generation.error_code or generation.finish_reason
        return f"{generation.status}: {reason}" if reason else generation.status

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
        first_token_ms = generation.timings.get("first_token") or None  # 0: it ended before
        return f"{duration_text(first_token_ms)} / {duration_text(total_ms(generation))}"

    @admin.display(description="device")
    def device(self, message: Message) -> str:
        return device_text(message.generation.devices) if message.generation else ""

    @admin.display(description="parameters")
    def parameters(self, message: Message) -> str:
        return parameters_text(message.generation.params) if message.generation else "-"
