"""Admin of the built-in memory store: transcripts with their segments, and notes.

Read-only, since services and imports own them. Deletion goes through the indexer, so that no index keeps the text.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest

from chat.access.owners import owner_labels
from chat.admin.common.folded_search import FoldedSearch
from chat.admin.common.formatting import offset_text, shortened
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.local_time import moment_text
from chat.rag import listing
from chat.rag.indexing import indexer
from chat.rag.models import SHARED, Note, Transcript

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

LINES_PER_PAGE = 200
OWNERS_OFFERED = 30
CITATIONS_STAY = "answers that cite it keep their copy until their conversation is deleted"


class MemoryOwnerFilter(SimpleListFilter):
    """Offers shared memories, and the owners of others."""

    title = "owner"
    parameter_name = "owner"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> Iterable[tuple[str, str]]:
        rows = model_admin.model._default_manager.exclude(owner=SHARED)
        owners = rows.order_by("owner").values_list("owner", flat=True).distinct()[:OWNERS_OFFERED]
        return [("shared", "shared"), *owner_labels(owners).items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        return queryset.filter(owner=SHARED if self.value() == "shared" else self.value())


class MemoryChangeList(ChangeList):
    """Sets ``listed_owner`` and ``listed_lines`` on every row of the page, with one query for each."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # Evaluated here, so that the attributes are still on the rows when they are rendered.
        rows: list[Any] = list(self.result_list)
        labels = owner_labels(row.owner for row in rows) | {SHARED: "shared"}
        n_lines = listing.segment_counts(rows) if self.model is Transcript else {}
        for row in rows:
            row.listed_owner, row.listed_lines = labels[row.owner], n_lines.get(row.pk, 0)
        self.result_list = rows


class MemoryAdmin(ReadOnlyAdmin):
    """Columns and deletion common to transcripts and notes."""

    date_hierarchy = "created_at"

    def get_changelist(self, request: HttpRequest, **kwargs: object) -> type[ChangeList]:
        return MemoryChangeList

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm(f"memory.delete_{self.opts.model_name}")

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Sequence[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[Any, Any], set[str], list[Any]]:
        """List the memories themselves, not their segments and passages."""
        memories = list(objs)
        allowed = self.has_delete_permission(request)
        counts = {self.opts.verbose_name_plural: len(memories)}
        lines = [f"{shortened(str(memory))} ({CITATIONS_STAY})" for memory in memories]
        return lines, counts, set() if allowed else {str(self.opts.verbose_name)}, []

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        # One by one: the indexer also removes vectors, and has the KV states purged that hold the memory.
        for memory in queryset:
            self.delete_model(request, memory)

    @admin.display(description="owner", ordering="owner")
    def owner_label(self, memory: Transcript | Note) -> str:
        listed = getattr(memory, "listed_owner", None)
        return listed or ("shared" if memory.owner == SHARED else owner_labels([memory.owner])[memory.owner])

    @admin.display(description="when", ordering="created_at")
    def moment(self, memory: Transcript | Note) -> str:
        return moment_text(memory.created_at)


@admin.register(Transcript)
class TranscriptAdmin(FoldedSearch, MemoryAdmin):
    list_display = ("heading", "owner_label", "moment", "n_lines", "duration", "job_id")
    list_filter = (MemoryOwnerFilter, "created_at")
    search_fields = (
        "title_folded__contains",
        "job_id",
        "session_id",
        "segments__text_folded__contains",
        "segments__speaker_folded__contains",
    )
    search_help_text = "Words of a title or segment, a speaker, or the id of a job or session."
    fields = ("heading", "owner_label", ("recorded", "indexed"), "job_id", "session_id", "duration", "file_path")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("file").defer("full_text")  # long, and not shown

    def page_context(self, request: HttpRequest, obj: Transcript) -> dict[str, object]:
        segments = obj.segments.order_by("position")
        speakers = segments.exclude(speaker="").values("speaker").annotate(n=Count("pk")).order_by("-n", "speaker")
        page = Paginator(segments, LINES_PER_PAGE).get_page(request.GET.get("page"))
        for segment in page.object_list:
            segment.offset_text = "" if segment.start_secs is None else offset_text(segment.start_secs)
            # Without an offset it was stored under the beginning of the recording.
            segment.has_time = segment.start_secs is not None or segment.said_at != obj.created_at
        return {"page": page, "speakers": list(speakers[:OWNERS_OFFERED])}

    def delete_model(self, request: HttpRequest, obj: Transcript) -> None:
        indexer.delete_transcript(owner=obj.owner, job_id=obj.job_id)

    @admin.display(description="transcript", ordering="title")
    def heading(self, transcript: Transcript) -> str:
        return shortened(str(transcript))

    @admin.display(description="lines")
    def n_lines(self, transcript: Transcript) -> int:
        return int(getattr(transcript, "listed_lines", 0))

    @admin.display(description="length", ordering="duration_secs")
    def duration(self, transcript: Transcript) -> str:
        if transcript.duration_secs is not None:
            return offset_text(transcript.duration_secs)
        if hasattr(transcript, "listed_lines"):  # a query for each row of the list
            return "-"
        last_end_secs = transcript.segments.aggregate(last=Max("end_secs"))["last"]
        return "-" if last_end_secs is None else f"{offset_text(last_end_secs)}, to the end of its last line"

    @admin.display(description="recorded")
    def recorded(self, transcript: Transcript) -> str:
        return moment_text(transcript.created_at, with_seconds=True)

    @admin.display(description="indexed")
    def indexed(self, transcript: Transcript) -> str:
        return moment_text(transcript.indexed_at, with_seconds=True)

    @admin.display(description="file")
    def file_path(self, transcript: Transcript) -> str:
        return transcript.file.path if transcript.file else "-"


@admin.register(Note)
class NoteAdmin(FoldedSearch, MemoryAdmin):
    list_display = ("heading", "excerpt", "owner_label", "moment")
    list_filter = (MemoryOwnerFilter, "created_at")
    search_fields = ("title_folded__contains", "body_folded__contains", "key")
    search_help_text = "Words of a title or note, or its key."
    fields = ("title", "owner_label", "created_at", "key", "body", "metadata")

    def delete_model(self, request: HttpRequest, obj: Note) -> None:
        indexer.delete_note(owner=obj.owner, note_id=obj.pk)

    @admin.display(description="note", ordering="title")
    def heading(self, note: Note) -> str:
        return shortened(note.title) or "(no title)"

    @admin.display(description="text")
    def excerpt(self, note: Note) -> str:
        return shortened(note.body)
