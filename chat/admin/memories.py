"""Admin of the built-in memory store: transcripts with their segments, and notes.

What services and imports own (ids, offsets, emotions) is read-only. Every write goes through ``chat.rag.indexing``, so
that no index keeps an earlier text.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Count, Max, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods

from chat.access.owners import owner_labels
from chat.admin.actions import show_refusal
from chat.admin.common.folded_search import FoldedSearch
from chat.admin.common.formatting import offset_text, shortened
from chat.admin.common.read_only import ReadOnlyAdmin
from chat.admin.memory_pages.forms import NewNoteForm, NoteForm, TranscriptForm
from chat.admin.memory_pages.line import change_line
from chat.admin.memory_pages.trial import trial_page
from chat.errors import ChatError
from chat.local_time import moment_text
from chat.rag import listing
from chat.rag.indexing import editing, indexer
from chat.rag.models import SHARED, Note, Transcript
from chat.rag.records import NoteIn

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.forms import ModelForm

LINES_PER_PAGE = 200
OWNERS_OFFERED = 30
CITATIONS_STAY = "answers that cite it keep their copy until their conversation is deleted"
IMPORTED = "It comes from a file or another service: their next version of it replaces changes made here."
BEING_INDEXED = "Its words are searched from now on, and its meaning within seconds."
get_or_post = require_http_methods(["GET", "POST"])


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
    """Columns, changes and deletion common to transcripts and notes."""

    date_hierarchy = "created_at"

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm(f"memory.change_{self.opts.model_name}")

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ChatError as error:
            show_refusal(request, error)
            return HttpResponseRedirect(request.get_full_path())

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
    form = TranscriptForm
    fields = ("title", "owner_label", "created_at", "indexed", "job_id", "session_id", "duration", "file_path")
    readonly_fields = ("owner_label", "indexed", "job_id", "session_id", "duration", "file_path")

    def get_urls(self) -> list[URLPattern]:
        line = self.admin_site.admin_view(get_or_post(self.line))
        return [path("line/<int:pk>/", line, name="memory_transcript_line"), *super().get_urls()]

    def line(self, request: HttpRequest, pk: int) -> HttpResponse:
        return change_line(self, request, pk, lines_per_page=LINES_PER_PAGE)

    def save_model(self, request: HttpRequest, obj: Transcript, form: "ModelForm[Transcript]", change: bool) -> None:
        if form.has_changed():
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            editing.edit_transcript(transcript_id=obj.pk, **changes)
            messages.info(request, BEING_INDEXED)

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
        may_change = self.has_change_permission(request, obj)
        return {
            "page": page,
            "speakers": list(speakers[:OWNERS_OFFERED]),
            "may_change": may_change,
            "form_note": IMPORTED if may_change else "",
        }

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
    readonly_fields = ("owner_label", "key", "metadata")

    def get_urls(self) -> list[URLPattern]:
        trial = self.admin_site.admin_view(get_or_post(self.trial))
        return [path("try/", trial, name="memory_trial"), *super().get_urls()]

    def trial(self, request: HttpRequest) -> HttpResponse:
        return trial_page(request, self.admin_site.each_context(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("memory.add_note")

    def get_form(
        self,
        request: HttpRequest,
        obj: Note | None = None,
        change: bool = False,
        **kwargs: Any,  # noqa: ANN401  those of the base
    ) -> "type[ModelForm[Note]]":
        return super().get_form(request, obj, change, **{"form": NoteForm if change else NewNoteForm, **kwargs})

    def get_fields(self, request: HttpRequest, obj: Note | None = None) -> tuple[str, ...]:
        return tuple(self.fields) if obj else ("title", "owner_name", "created_at", "body")

    def page_context(self, request: HttpRequest, obj: Note | None) -> dict[str, object]:
        is_imported = obj is not None and bool(obj.key or obj.file_id)
        return {"form_note": IMPORTED if is_imported and self.has_change_permission(request, obj) else ""}

    def save_model(self, request: HttpRequest, obj: Note, form: "ModelForm[Note]", change: bool) -> None:
        if isinstance(form, NewNoteForm):
            new = NoteIn(title=obj.title, body=obj.body, created_at=obj.created_at)
            [note] = indexer.add_notes(owner=form.owner, notes=[new], defer_embedding=True)
            obj.pk, obj.owner = note.pk, note.owner
        elif form.has_changed():
            changes = {name: form.cleaned_data[name] for name in form.changed_data}
            editing.edit_note(note_id=obj.pk, **changes)
        else:
            return
        messages.info(request, BEING_INDEXED)

    def delete_model(self, request: HttpRequest, obj: Note) -> None:
        indexer.delete_note(owner=obj.owner, note_id=obj.pk)

    @admin.display(description="note", ordering="title")
    def heading(self, note: Note) -> str:
        return shortened(note.title) or "(no title)"

    @admin.display(description="text")
    def excerpt(self, note: Note) -> str:
        return shortened(note.body)
