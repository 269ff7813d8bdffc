"""The RAG service's endpoints over the built-in store: search, index, add, list, count, delete.

Services write and read shared memories; users add their own and see them beside the shared ones.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from msgspec import Struct, structs

from chat.access import usage
from chat.access.callers import Caller
from chat.api.body_parsing import read_object
from chat.api.json_response import json_response
from chat.api.pagination import page_limit, page_offset
from chat.api.turn_requests import View, for_callers, read_in_thread
from chat.errors import Forbidden, NotFound, Unavailable
from chat.rag import listing
from chat.rag.indexing import indexer
from chat.rag.models import SHARED
from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.search import hybrid
from chat.rag.vectors import embedding
from chat.schemas.memories import answers as wire
from chat.schemas.memories import bodies
from chat.schemas.memories.bodies import SearchRequest

P = ParamSpec("P")
BlockingView = Callable[Concatenate[HttpRequest, Caller, P], Struct]
MAX_ID_DIGITS = 18  # within a 64-bit key: a longer number would be an error of the database


def served(*methods: str) -> Callable[[BlockingView[P]], View[P]]:
    """A view that may block: it runs in a thread and returns its answer."""

    def decorate(view: BlockingView[P]) -> View[P]:
        async def answer(
            request: HttpRequest, caller: Caller, /, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            return json_response(await read_in_thread(request, lambda request: view(request, caller, *args, **kwargs)))

        update_wrapper(answer, view)
        return for_callers(*methods)(answer)

    return decorate


@served("POST")
def search_semantic(request: HttpRequest, caller: Caller) -> Struct:
    """POST /search/semantic"""
    search = bodies.search_request(read_object(request))
    results = wire.hits(search_memories(search, caller).sources)
    return wire.SearchAnswer(query=search.query, count=len(results), results=results)


@served("POST")
def search_old(request: HttpRequest, caller: Caller) -> Struct:
    """POST /search: the older form of the answer."""
    result = search_memories(bodies.search_request(read_object(request)), caller)
    results = [wire.old_hit(hit) for hit in wire.hits(result.sources)]
    return wire.OldSearchAnswer(
        results=results,
        total_results=len(results),
        query_embedding_time=0.0,  # a field of that form; the search measures both steps together
        search_time=result.latency_ms / 1000,
    )


@served("POST")
def search_notes(request: HttpRequest, caller: Caller) -> Struct:
    """POST /memory/search"""
    search = bodies.note_search_request(read_object(request))
    results = [wire.note_hit(hit) for hit in wire.hits(search_memories(search, caller).sources)]
    return wire.NoteSearchAnswer(count=len(results), results=results)


@served("POST")
def index_transcript(request: HttpRequest, caller: Caller) -> Struct:
    """POST /index/transcript: store a transcript, in place of one of the same job_id. It is found by its words from now
    on, and when it is long by meaning once ``vectors_pending`` is 0."""
    body = bodies.transcript_in(read_object(request, max_bytes=settings.TRANSCRIPT_MAX_BYTES))
    usage.check_memories(caller, n_more=len(body.segments))
    later = indexer.is_long_to_embed(segment.text for segment in body.segments)
    transcript = indexer.index_transcript(owner=owner_of(caller), transcript=body, defer_embedding=later)
    return wire.IndexAnswer(
        transcript_id=str(transcript.pk),
        job_id=transcript.job_id,
        segments_indexed=transcript.segments.count(),
        segments_skipped=sum(not segment.text.strip() for segment in body.segments),
        vectors_pending=transcript.passages.filter(embedding=None).count(),
    )


@served("POST")
def add_note(request: HttpRequest, caller: Caller) -> Struct:
    """POST /memory/add"""
    body = bodies.note_in(read_object(request))
    usage.check_memories(caller, n_more=1)
    [note] = indexer.add_notes(
        owner=owner_of(caller), notes=[body], defer_embedding=indexer.is_long_to_embed([body.body])
    )
    return wire.NoteIdAnswer(memory_id=str(note.pk))


@served("GET")
def list_notes(request: HttpRequest, caller: Caller) -> Struct:
    """GET /memory/list: newest first; ``count`` is how many there are in all."""
    limit, offset = page_limit(request.GET), page_offset(request.GET)
    notes = listing.notes_of(owner_of(caller))
    page = [wire.note_answer(note) for note in notes[offset : offset + limit]]
    return wire.NoteListAnswer(memories=page, count=notes.count())


@served("GET")
def stats(request: HttpRequest, caller: Caller) -> Struct:
    """GET /memory/stats"""
    counts, problem = listing.counts(owner_of(caller)), embedding.unavailable_reason()
    return wire.StatsAnswer(
        memories=counts.notes,
        total_memories=counts.notes,
        transcripts=counts.transcripts,
        segments=counts.segments,
        embeddings=wire.EmbeddingState(available=not problem, dimensions=embedding.DIMENSIONS, detail=problem),
    )


@served("GET")
def recent_transcripts(request: HttpRequest, caller: Caller) -> Struct:
    """GET /transcripts/recent: last recorded first."""
    limit = page_limit(request.GET, bodies.DEFAULT_LIMIT)
    rows = listing.transcripts_of(owner_of(caller)).prefetch_related("segments")[:limit]
    transcripts = [wire.transcript_answer(row) for row in rows]
    return wire.TranscriptListAnswer(transcripts=transcripts, count=len(transcripts))


@served("GET")
def speakers(request: HttpRequest, caller: Caller) -> Struct:
    """GET /transcripts/speakers"""
    names = listing.speakers_of(owner_of(caller))
    return wire.SpeakersAnswer(speakers=names, count=len(names))


@served("POST")
def count_transcripts(request: HttpRequest, caller: Caller) -> Struct:
    """POST /transcripts/count: ``count`` is the number of segments, as clients of a RAG service read it."""
    span, owner = bodies.count_request(read_object(request)), owner_of(caller)
    segments = listing.segments_between(
        owner,
        speakers=span.speakers,
        emotions=span.emotions,
        start=span.start,
        end=span.end,
        last_n=span.last_n,
    )
    transcripts = listing.transcripts_between(owner, speakers=span.speakers, start=span.start, end=span.end)
    if span.emotions:
        # Emotions are those of segments: a transcript counts when it has one of them.
        transcripts = transcripts.filter(segments__in=segments).distinct()
    n_transcripts = transcripts.count()
    return wire.CountAnswer(
        count=segments.count(),
        transcripts=n_transcripts if span.last_n is None else min(n_transcripts, span.last_n),
    )


@served("GET", "DELETE")
def transcript(request: HttpRequest, caller: Caller, job_id: str) -> Struct:
    """/transcript/{job_id}"""
    row = listing.transcript_of(owner_of(caller), job_id)
    # Memories of other owners are reported as missing, so that their names stay private.
    if row is None:
        raise NotFound("there is no such transcript")
    if request.method == "DELETE":
        check_may_delete(caller, row.owner)
        indexer.delete_transcript(owner=row.owner, job_id=row.job_id)
        return wire.TranscriptIdAnswer(job_id=row.job_id)
    whole = wire.transcript_answer(row)
    return wire.WholeTranscriptAnswer(**structs.asdict(whole), transcript=whole)


@served("DELETE")
def delete_note(request: HttpRequest, caller: Caller, memory_id: str) -> Struct:
    """DELETE /memory/{memory_id}. Answers that cite it keep what they were shown."""
    is_number = memory_id.isascii() and memory_id.isdigit() and len(memory_id) <= MAX_ID_DIGITS
    note = listing.note_of(owner_of(caller), int(memory_id)) if is_number else None
    if note is None:
        raise NotFound("there is no such memory")
    check_may_delete(caller, note.owner)
    indexer.delete_note(owner=note.owner, note_id=note.pk)
    return wire.NoteIdAnswer(memory_id=memory_id)


def owner_of(caller: Caller) -> str:
    """Return the owner of the memories that the caller adds and sees; those of services are shared."""
    return SHARED if caller.is_service else caller.key


def check_may_delete(caller: Caller, owner: str) -> None:
    """Raises Forbidden for shared memories, which only services and staff delete."""
    is_staff = bool(getattr(caller.user, "is_staff", False))
    if owner == SHARED and not (caller.is_service or is_staff):
        raise Forbidden("shared memories are deleted by services and staff", code="shared_memory")


def search_memories(search: SearchRequest, caller: Caller) -> RetrievalResult:
    """Search the built-in store, also while chats use another service. Raises Unavailable."""
    query = RetrievalQuery(
        text=search.query,
        top_k=search.top_k,
        filters=search.filters,
        owner=owner_of(caller),
        now=timezone.localtime(),
        kind=search.kind,
        with_neighbours=False,  # a hit is a segment; chats add the lines around it
        only_related=False,  # the caller sees the scores
    )
    result = hybrid.search(query)
    if result.error:
        raise Unavailable(result.error, code="store_unavailable", retry_after_secs=5)
    return result
