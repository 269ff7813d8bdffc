"""The page on which an operator tries a question: every candidate of the search, and why it is shown or not."""

from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from chat.admin.common.formatting import duration_text
from chat.admin.common.retrieval_view import SourceLine, named_values, source_line
from chat.admin.memory_pages.forms import TrialForm
from chat.rag.query import RetrievalQuery, RetrievalResult, SourceFilters
from chat.rag.retrieval import local
from chat.rag.sources import MEMORY, Source
from chat.schemas.requests import DEFAULT_RAG_TOP_K

MOST_SHOWN = 50  # above the threshold, and as many below it


@dataclass(frozen=True)
class Candidate:
    """A passage of the search; ``address`` is the page on which it is changed, empty without the permission."""

    line: SourceLine
    address: str


@dataclass(frozen=True)
class Trial:
    """``sources`` are those that a chat shows its model, ``next_best`` those after them, ``rejected`` those below the
    threshold."""

    sources: list[Candidate]
    next_best: list[Candidate]
    rejected: list[Candidate]
    understood: str
    took: str
    error: str
    note: str
    threshold: str


def trial_page(request: HttpRequest, context: dict[str, object]) -> HttpResponse:
    """Search on POST, so that the question is in no address and no log."""
    if not request.user.has_perms(["memory.view_note", "memory.view_transcript"]):
        raise PermissionDenied
    form = TrialForm(request.POST or None)
    trial = None
    if request.method == "POST" and form.is_valid():
        caller = form.cleaned_data["owner"]
        trial = _trial(request, form.cleaned_data["question"], caller.key if caller else None)
    page = {
        "title": "Try a question",
        "form": form,
        "media": form.media,
        "trial": trial,
        "most_shown": MOST_SHOWN,
        "searches_elsewhere": bool(settings.RAG_SERVICE_URL),
    }
    return TemplateResponse(request, "admin/memory/trial.html", {**context, **page})


def _trial(request: HttpRequest, question: str, owner: str | None) -> Trial:
    query = RetrievalQuery(
        text=question,
        top_k=MOST_SHOWN,
        filters=SourceFilters(),
        owner=owner,
        now=timezone.localtime(),
        with_neighbours=False,  # each candidate by itself
        n_rejected=MOST_SHOWN,
    )
    result = local.search(query)
    above = [_candidate(request, source) for source in result.sources]
    return Trial(
        sources=above[:DEFAULT_RAG_TOP_K],
        next_best=above[DEFAULT_RAG_TOP_K:],
        rejected=[_candidate(request, source, is_rejected=True) for source in result.rejected],
        understood=named_values(result.understood),
        took=duration_text(result.latency_ms),
        error=result.error,
        note=result.note,
        threshold=_threshold(result),
    )


def _candidate(request: HttpRequest, source: Source, *, is_rejected: bool = False) -> Candidate:
    line = source_line(source.as_wire() | {"rejected": is_rejected}, set(), source.scores)
    is_note = source.kind == MEMORY
    model, page = ("note", "memory_note_change") if is_note else ("transcript", "memory_transcript_line")
    may_change = request.user.has_perm(f"memory.change_{model}")
    address = reverse(f"admin:{page}", args=[source.doc_id]) if may_change else ""
    return Candidate(line, address)


def _threshold(result: RetrievalResult) -> str:
    """Return what the relevance threshold did with this question as a whole."""
    candidates = [*result.sources, *result.rejected]
    if not candidates:
        return "no passage was compared"
    floor = candidates[0].scores.get("floor") or 0.0
    if floor == 0.0:
        return "none: the question has no subject, and its hints decide"
    return f"evidence of {floor:.2f}, or the words or a name of the question"
