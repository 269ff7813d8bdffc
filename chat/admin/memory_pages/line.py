"""The page on which a line of a transcript is changed."""

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse

from chat.admin.memory_pages.forms import LineForm
from chat.errors import ChatError
from chat.rag.indexing import editing
from chat.rag.models import Segment

if TYPE_CHECKING:
    _TranscriptAdmin = ModelAdmin[Any]
else:
    _TranscriptAdmin = ModelAdmin  # takes no type arguments at run time


def change_line(admin: _TranscriptAdmin, request: HttpRequest, pk: int, *, lines_per_page: int) -> HttpResponse:
    rows = Segment.objects.select_related("transcript").defer("transcript__full_text")
    line = get_object_or_404(rows, pk=pk)
    if not admin.has_change_permission(request, line.transcript):
        raise PermissionDenied
    initial = {"text": line.text, "speaker": line.speaker, "said_at": line.said_at}
    form = LineForm(request.POST or None, initial=initial)
    address = reverse("admin:memory_transcript_change", args=[line.transcript_id])
    n_before = Segment.objects.filter(transcript=line.transcript_id, position__lt=line.position).count()
    if request.method == "POST" and form.is_valid() and _store(line, form):
        if form.has_changed():
            fields = [str(form.fields[name].label or name) for name in form.changed_data]
            change = {"name": "line", "object": str(n_before + 1), "fields": fields}
            admin.log_change(request, line.transcript, [{"changed": change}])
            messages.success(request, "The line was changed.")
        return HttpResponseRedirect(f"{address}?page={n_before // lines_per_page + 1}#line-{line.pk}")
    context = {
        **admin.admin_site.each_context(request),
        "title": f"Line {n_before + 1} of {line.transcript}",
        "opts": admin.opts,
        "media": admin.media + form.media,
        "form": form,
        "transcript": line.transcript,
        "address": address,
    }
    return TemplateResponse(request, "admin/memory/transcript/line.html", context)


def _store(line: Segment, form: LineForm) -> bool:
    """Store what the form changes; return False, with an error in the form, where that is not possible."""
    if not form.has_changed():
        return True
    try:
        editing.edit_line(segment_id=line.pk, **{name: form.cleaned_data[name] for name in form.changed_data})
    except ChatError as error:
        form.add_error(None, f"Not done: {error.message}.")
        return False
    return True
