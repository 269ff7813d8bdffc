"""The RAG service's endpoints over the built-in store: search, index, add, list, count, delete.

Services write and read what is everybody's; others add their own and see it beside what is everybody's.
"""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, Concatenate, ParamSpec

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.pagination import MAX_OFFSET, whole_number
from chat.api.turn_requests import View, for_callers
from chat.errors import Forbidden, NotFound, Unavailable
from chat.rag import listing
from chat.rag.indexing import indexer
from chat.rag.models import SHARED
from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.search import hybrid
from chat.rag.vectors import embedding
from chat.schemas import memory_answers as wire
from chat.schemas import memory_bodies as bodies
from chat.schemas.memory_bodies import SearchRequest
from chat.streaming.background import in_thread

P = ParamSpec("P")
Json = dict[str, Any]
BlockingView = Callable[Concatenate[HttpRequest, Caller, P], Json]
MAX_LIMIT = 500
MAX_ID_DIGITS = 18


def served(*methods: str) -> Callable[[BlockingView[P]], View[P]]:
    """A view that may block: it runs in a thread, and what it returns is the answer."""

    def decorate(view: BlockingView[P]) -> View[P]:
        async def answer(
            request: HttpRequest, caller: Caller, /, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            return JsonResponse(await in_thread(partial(view, request, caller, *args, **kwargs)))

        update_wrapper(answer, view)
        return for_callers(*methods)(answer)

    return decorate


@served("POST")
def search_semantic(request: HttpRequest, caller: Caller) -> Json:
    """POST /search/semantic"""
    asked = bodies.search_request(read_object(request))
    results = wire.hits(_searched(asked, caller).sources)
    return {"success": True, "query": asked.query, "count": len(results), "results": results}


@served("POST")
def search_old(request: HttpRequest, caller: Caller) -> Json:
    """POST /search: the older form of the answer."""
    found = _searched(bodies.search_request(read_object(request)), caller)
    results = [wire.old_hit(hit) for hit in wire.hits(found.sources)]
    times = {"query_embedding_time": 0.0, "search_time": found.latency_ms / 1000}  # the second includes the first
    return {"results": results, "total_results": len(results)} | times


@served("POST")
def search_notes(request: HttpRequest, caller: Caller) -> Json:
    """POST /memory/search"""
    asked = bodies.note_search_request(read_object(request))
    results = [wire.note_hit(hit) for hit in wire.hits(_searched(asked, caller).sources)]
    return {"success": True, "count": len(results), "results": results}


@served("POST")
def index_transcript(request: HttpRequest, caller: Caller) -> Json:
    """POST /index/transcript: again under the same job_id, it replaces. Found by its words from now on; a long one by
    meaning when ``vectors_pending`` has become 0."""
    given = bodies.transcript_in(read_object(request, max_bytes=settings.TRANSCRIPT_MAX_BYTES))
    later = indexer.is_long_to_embed(segment.text for segment in given.segments)
    transcript = indexer.index_transcript(owner=owner_of(caller), transcript=given, defer_embedding=later)
    named = {"transcript_id": str(transcript.pk), "job_id": transcript.job_id}
    n_pending = transcript.passages.filter(embedding=None).count()
    return {"success": True, **named, "segments_indexed": transcript.segments.count(), "vectors_pending": n_pending}


@served("POST")
def add_note(request: HttpRequest, caller: Caller) -> Json:
    """POST /memory/add"""
    given = bodies.note_in(read_object(request))
    [note] = indexer.add_notes(
        owner=owner_of(caller), notes=[given], defer_embedding=indexer.is_long_to_embed([given.body])
    )
    return {"success": True, "memory_id": str(note.pk)}


@served("GET")
def list_notes(request: HttpRequest, caller: Caller) -> Json:
    """GET /memory/list: newest first; ``count`` is how many there are in all."""
    limit = whole_number(request.GET, "limit", 50, smallest=1, largest=MAX_LIMIT)
    offset = whole_number(request.GET, "offset", 0, smallest=0, largest=MAX_OFFSET)
    notes = listing.notes_of(owner_of(caller))
    page = [wire.note_json(note) for note in notes[offset : offset + limit]]
    return {"success": True, "memories": page, "count": notes.count()}


@served("GET")
def stats(request: HttpRequest, caller: Caller) -> Json:
    """GET /memory/stats"""
    counts, problem = listing.counts(owner_of(caller)), embedding.unavailable_reason()
    return {
        "success": True,
        "memories": counts.notes,
        "transcripts": counts.transcripts,
        "segments": counts.segments,
        "embeddings": {"available": not problem, "dimensions": embedding.DIMENSIONS, "detail": problem},
    }


@served("GET")
def recent_transcripts(request: HttpRequest, caller: Caller) -> Json:
    """GET /transcripts/recent: last recorded first."""
    limit = whole_number(request.GET, "limit", bodies.DEFAULT_LIMIT, smallest=1, largest=MAX_LIMIT)
    rows = list(listing.transcripts_of(owner_of(caller)).defer("full_text")[:limit])
    n_segments = listing.segment_counts(rows)
    found = [wire.transcript_json(row, n_segments=n_segments.get(row.pk, 0)) for row in rows]
    return {"success": True, "transcripts": found, "count": len(found)}


@served("GET")
def speakers(request: HttpRequest, caller: Caller) -> Json:
    """GET /transcripts/speakers"""
    names = listing.speakers_of(owner_of(caller))
    return {"success": True, "speakers": names, "count": len(names)}


@served("POST")
def count_transcripts(request: HttpRequest, caller: Caller) -> Json:
    """POST /transcripts/count"""
    span = bodies.count_request(read_object(request))
    count = listing.transcripts_between(
        owner_of(caller), speakers=span.speakers, start=span.start, end=span.end
    ).count()
    return {"success": True, "count": count if span.last_n is None else min(count, span.last_n)}


@served("GET", "DELETE")
def transcript(request: HttpRequest, caller: Caller, job_id: str) -> Json:
    """/transcript/{job_id}"""
    row = listing.transcript_of(owner_of(caller), job_id)
    # What belongs to others is not there: their names are nobody's business.
    if row is None:
        raise NotFound("no such transcript")
    if request.method == "DELETE":
        check_may_delete(caller, row.owner)
        indexer.delete_transcript(owner=row.owner, job_id=row.job_id)
        return {"success": True, "job_id": row.job_id}
    lines = [wire.segment_json(segment) for segment in row.segments.all()]
    told = wire.transcript_json(row, n_segments=len(lines))
    return {"success": True, **told, "full_text": row.full_text, "segments": lines}


@served("DELETE")
def delete_note(request: HttpRequest, caller: Caller, memory_id: str) -> Json:
    """DELETE /memory/{memory_id}. Answers that cite it keep what they were shown."""
    is_number = memory_id.isascii() and memory_id.isdigit() and len(memory_id) <= MAX_ID_DIGITS
    note = listing.note_of(owner_of(caller), int(memory_id)) if is_number else None
    if note is None:
        raise NotFound("no such memory")
    check_may_delete(caller, note.owner)
    indexer.delete_note(owner=note.owner, note_id=note.pk)
    return {"success": True, "memory_id": memory_id}


def owner_of(caller: Caller) -> str:
    """Whose memories the caller adds and sees: what services bring is everybody's."""
    return SHARED if caller.is_service else caller.key


def check_may_delete(caller: Caller, owner: str) -> None:
    """Raises Forbidden: what is everybody's is not anybody's to delete."""
    is_staff = bool(getattr(caller.user, "is_staff", False))
    if owner == SHARED and not (caller.is_service or is_staff):
        raise Forbidden("shared memories are deleted by services and staff", code="shared_memory")


def _searched(asked: SearchRequest, caller: Caller) -> RetrievalResult:
    """Raises Unavailable. Always the built-in store: who asks here wants what was brought in here."""
    query = RetrievalQuery(
        text=asked.query,
        top_k=asked.top_k,
        filters=asked.filters,
        owner=owner_of(caller),
        now=timezone.localtime(),
        kind=asked.kind,
        with_neighbours=False,  # a hit is a segment here; chats add the lines around it
        only_related=False,  # who searches asked for so many, and sees their scores
    )
    found = hybrid.search(query)
    if found.error:
        raise Unavailable(found.error, code="store_unavailable", retry_after_secs=5)
    return found
