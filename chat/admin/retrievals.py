"""Admin of retrievals: the query of an answer, the sources shown to the model and the search's outcome."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from chat.admin.common.changelists import conversation_link
from chat.admin.common.folded_search import FoldedSearch
from chat.admin.common.formatting import duration_text, shortened
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.admin.common.retrieval_view import retrieval_view
from chat.admin.filters import RetrievalOutcomeFilter
from chat.local_time import moment_text
from chat.models import Retrieval


@admin.register(Retrieval)
class RetrievalAdmin(FoldedSearch, ReadOnlyAdmin):
    list_display = ("moment", "excerpt", "in_conversation", "n_found", "n_sources", "latency", "error")
    list_filter = ("created_at", RetrievalOutcomeFilter)
    search_fields = ("query_folded__contains", "error", "message__conversation__title_folded__contains")
    search_help_text = "Words of a question, of an error, or of a conversation's title."
    fields = ("moment", "in_conversation", "answer")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request).select_related("message__conversation", "message__generation")
        return rows.defer("message__rendered", "message__generation__prompt", "message__generation__output")

    def page_context(self, request: HttpRequest, obj: Retrieval) -> dict[str, object]:
        return {"retrieval": retrieval_view(obj)}

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
    def n_found(self, retrieval: Retrieval) -> int:
        return retrieval.n_hits

    @admin.display(description="sources given")
    def n_sources(self, retrieval: Retrieval) -> int:
        return len(retrieval.sources)

    @admin.display(description="took", ordering="latency_ms")
    def latency(self, retrieval: Retrieval) -> str:
        return duration_text(retrieval.latency_ms)
