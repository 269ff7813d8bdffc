"""Admin pages of generations, read-only except for the action that cancels: the live view of what waits and runs."""

import uuid
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_GET, require_POST

from chat.access.owners import owner_labels, owners_named
from chat.admin.common.changelists import conversation_link
from chat.admin.common.formatting import device_text, duration_text, parameters_text, tokens_per_second, total_ms
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.admin.service.engine import engine_page
from chat.admin.service.running import running_page
from chat.admin.waterfall import waterfall
from chat.local_time import moment_text
from chat.models import Message
from inference.errors import AlreadyEnded
from inference.models import Generation
from inference.queue import generations

HEAVY_COLUMNS = (
    "prompt",
    "output",
    "text",
    "text_folded",
    "text_ends",
    "thought",
    "thought_ends",
    "logprobs",
    "details",
)
GROUPS = {
    None: ("status_text", "owner_label", "in_conversation", "answer"),
    "Figures": ("moment", "tokens", "cached", "times", "speed", "device_parts", "model_name"),
    "Request": ("priority", "parameters", "timeout", "id"),
    "Work": ("worker", "attempts", "queued", "deadline", "started", "finished"),
}


class GenerationChangeList(ChangeList):
    """Sets ``listed_owner`` and ``listed_message`` on every row of the page, with one query for each."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)
        labels = owner_labels(row.owner for row in rows)
        named = Message.objects.filter(generation__in=[row.pk for row in rows]).select_related("conversation")
        by_generation = {message.generation_id: message for message in named.defer("rendered")}
        for row in rows:
            row.listed_owner, row.listed_message = labels[row.owner], by_generation.get(row.pk)
        self.result_list = rows


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    list_display = (
        "moment",
        "status_text",
        "owner_label",
        "in_conversation",
        "tokens",
        "times",
        "speed",
        "device_parts",
    )
    list_filter = ("status", "priority", "finish_reason", "created_at")
    search_fields = ("owner",)  # shows the field; see get_search_results
    search_help_text = "The id of a generation or conversation, or the name of a user."
    actions = ("cancel",)
    fieldsets = [(title, {"fields": names}) for title, names in GROUPS.items()]
    readonly_fields = tuple(name for names in GROUPS.values() for name in names)

    def get_urls(self) -> list[URLPattern]:
        guarded = self.admin_site.admin_view
        return [
            path("running/", guarded(require_GET(self.running)), name="inference_generation_running"),
            path("engine/", guarded(require_GET(self.engine)), name="inference_engine"),
            path("<uuid:pk>/cancel/", guarded(require_POST(self.cancel_one)), name="inference_generation_cancel"),
            *super().get_urls(),
        ]

    def running(self, request: HttpRequest) -> HttpResponse:
        """Show what waits and runs, with its text so far."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "may_cancel": self.has_cancel_permission(request)}
        return running_page(request, context)

    def engine(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return engine_page(request, self.admin_site.each_context(request))

    def cancel_one(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        if not self.has_cancel_permission(request):
            raise PermissionDenied
        self.cancel(request, Generation.objects.filter(pk=pk))
        return HttpResponseRedirect(reverse("admin:inference_generation_running"))

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[ChangeList]:
        return GenerationChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Large columns that no list shows.
        return super().get_queryset(request).defer(*HEAVY_COLUMNS)

    def page_context(self, request: HttpRequest, obj: Generation) -> dict[str, object]:
        retrieval = getattr(getattr(obj, "message", None), "retrieval", None)
        return {"stages": waterfall(obj, retrieval.latency_ms if retrieval else None)}

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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by a whole id of a generation or conversation, by user name, or by the key of an owner."""
        term = search_term.strip()
        if not term:
            return queryset, False
        with suppress(ValueError):
            exact_id = uuid.UUID(term)
            in_conversation = Message.objects.filter(conversation=exact_id).values("generation")
            return queryset.filter(Q(pk=exact_id) | Q(pk__in=in_conversation)), False
        return queryset.filter(Q(owner__in=[term, *owners_named(term)]) | Q(session_id=term)), False

    @admin.display(description="requested", ordering="created_at")
    def moment(self, generation: Generation) -> str:
        return moment_text(generation.created_at, with_seconds=True)

    @admin.display(description="status")
    def status_text(self, generation: Generation) -> SafeString:
        reason = generation.error_code or ("" if generation.finish_reason == "stop" else generation.finish_reason)
        mark = format_html('<span class="tag tag-{}">{}</span>', generation.status, generation.get_status_display())
        return format_html("{} {}", mark, reason) if reason else mark

    @admin.display(description="owner")
    def owner_label(self, generation: Generation) -> str:
        listed = getattr(generation, "listed_owner", None)
        return listed or owner_labels([generation.owner])[generation.owner]

    @admin.display(description="conversation")
    def in_conversation(self, generation: Generation) -> str:
        # A page of the list has loaded its messages together.
        loaded = vars(generation)
        message = loaded["listed_message"] if "listed_message" in loaded else getattr(generation, "message", None)
        if message is None:
            return "not stored" if generation.ephemeral else "-"
        return conversation_link(message.conversation)

    @admin.display(description="answer")
    def answer(self, generation: Generation) -> str:
        return generation.text or generation.error_message or "-"

    @admin.display(description="tokens in / out")
    def tokens(self, generation: Generation) -> str:
        return f"{generation.n_prompt_tokens:,} / {generation.n_completion_tokens:,}"

    @admin.display(description="tokens from the cache")
    def cached(self, generation: Generation) -> str:
        return f"{generation.n_cached_tokens:,}"

    @admin.display(description="first token / answer")
    def times(self, generation: Generation) -> str:
        first_token_ms = generation.timings.get("first_token") or None
        return f"{duration_text(first_token_ms)} / {duration_text(total_ms(generation))}"

    @admin.display(description="speed")
    def speed(self, generation: Generation) -> str:
        speed = tokens_per_second(generation)
        return "-" if speed is None else f"{speed:.1f} tokens/s"

    @admin.display(description="device")
    def device_parts(self, generation: Generation) -> str:
        return device_text(generation.devices) or "-"

    @admin.display(description="parameters")
    def parameters(self, generation: Generation) -> str:
        return parameters_text(generation.params) or "-"

    @admin.display(description="time limit")
    def timeout(self, generation: Generation) -> str:
        return duration_text(generation.timeout_secs * 1000) if generation.timeout_secs else "-"

    @admin.display(description="attempts")
    def attempts(self, generation: Generation) -> str:
        cancelled = "; cancelled on request" if generation.cancel_requested else ""
        return f"{generation.attempt}, claim {generation.claim_epoch}, heartbeat {generation.heartbeat}{cancelled}"

    @admin.display(description="queued")
    def queued(self, generation: Generation) -> str:
        return _moment(generation.queued_at)

    @admin.display(description="deadline")
    def deadline(self, generation: Generation) -> str:
        return _moment(generation.deadline_at)

    @admin.display(description="started")
    def started(self, generation: Generation) -> str:
        return _moment(generation.started_at)

    @admin.display(description="finished")
    def finished(self, generation: Generation) -> str:
        return _moment(generation.finished_at)


def _moment(moment: datetime | None) -> str:
    return moment_text(moment, with_seconds=True) if moment else "-"
