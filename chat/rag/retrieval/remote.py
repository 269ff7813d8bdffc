"""Client of the external RAG service. A missing, slow or broken service costs the sources, never the answer.

Knows the wire form of the search; ``chat.rag.sources`` reads the hits.
"""

import asyncio
import functools
import json
import logging
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from datetime import time as time_of_day
from typing import Any, TypeVar

import httpx
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from chat.rag.query import RetrievalResult, SourceFilters
from chat.rag.search.query_understanding import HINT_WORDS
from chat.rag.search.relevance import MIN_SHARE
from chat.rag.search.terms import content_words, names_in, words
from chat.rag.sources import Source, source_from_hit
from inference.auth.service_token import mint
from inference.runtime.circuit_breaker import CircuitBreaker
from inference.runtime.http_calls import AnswerRefused, call_async

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_QUERY_CHARS = 2_000
NOT_CONFIGURED = "no memory service is configured"
# Services of the older form answer at the second path, with the same body.
PATHS = ("/search/semantic", "/search")

Result = TypeVar("Result")


class _SearchFailed(Exception):
    """No usable response. The text may be shown to users (it names no address).

    ``counts``: whether the circuit breaker counts it, since other queries would fail alike.
    """

    def __init__(self, text: str, *, counts: bool = True) -> None:
        super().__init__(text)
        self.counts = counts


def search(*, query: str, top_k: int, filters: SourceFilters, kind: str | None = None) -> RetrievalResult:
    """Search for at most ``top_k`` memories, best first; failures of the service are in ``error``.

    Takes at most RAG_TIMEOUT_SECS, and no time while the circuit breaker is open. Must not be called on a thread that
    runs an event loop.
    """
    base = settings.RAG_SERVICE_URL
    if not base:
        return RetrievalResult(error=NOT_CONFIGURED)
    breaker = breaker_for(base)
    ticket = breaker.admit()
    if ticket is None:
        wait = f"it is tried again in {breaker.wait_secs:.0f} s"
        return RetrievalResult(error=f"the memory service failed {breaker.n_failures} times in a row; {wait}")
    started = time.monotonic()
    body = {"query": query[:MAX_QUERY_CHARS], "top_k": top_k, "doc_type": kind} | _filters(filters)
    try:
        hits, error = _within(settings.RAG_TIMEOUT_SECS, _post_search(base.rstrip("/"), body)), ""
        sources = [hit for hit in hits if _is_related(query, hit)]
        breaker.succeeded(ticket)
    except (_SearchFailed, httpx.HTTPError, httpx.InvalidURL, OSError, ImproperlyConfigured) as problem:
        sources, error = [], _error_text(problem)
        log.warning("memory search failed reason=%s error=%r", error, problem.__cause__ or problem)
        # A rejected query, or a wrong key in our settings, must not open the breaker for all other callers.
        counts = problem.counts if isinstance(problem, _SearchFailed) else not isinstance(problem, ImproperlyConfigured)
        (breaker.failed if counts else breaker.succeeded)(ticket)
    latency_ms = (time.monotonic() - started) * 1000
    return RetrievalResult(sources=tuple(sources[:top_k]), error=error, latency_ms=latency_ms)


@functools.lru_cache(maxsize=8)
def breaker_for(base: str) -> CircuitBreaker:
    """Return this process's circuit breaker for the service at ``base``."""
    return CircuitBreaker(max_failures=settings.RAG_BREAKER_FAILURES, pause_secs=settings.RAG_BREAKER_PAUSE_SECS)


def _error_text(problem: Exception) -> str:
    match problem:
        case TimeoutError() | httpx.TimeoutException():
            return f"the memory service did not answer within {settings.RAG_TIMEOUT_SECS:g} s"
        case _SearchFailed():
            return str(problem)
        case _:
            return "the memory service could not be reached"


def _within(timeout_secs: float, work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` with a total time limit; HTTP clients bound single reads, which a slow trickle never exceeds."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, timeout_secs))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()  # not asyncio.run, which waits for the thread of a name lookup that may hang


def _filters(filters: SourceFilters) -> dict[str, Any]:
    return {
        "start_date": _naive_utc(filters.start_date, time_of_day.min),
        "end_date": _naive_utc(filters.end_date, time_of_day.max),
        "last_n_transcripts": filters.last_n_transcripts,
        "speakers": list(filters.speakers) or None,
        "bias_emotions": list(filters.bias_emotions) or None,
    }


def _naive_utc(text: str | None, hour: time_of_day) -> str | None:
    """Return a moment without its zone, in UTC: the service compares it with such moments, and fails at a zone.

    A date stands for its first or last moment in GEMMA_TIME_ZONE, ``hour``. What is no date is left to the service.
    """
    try:
        moment = datetime.fromisoformat((text or "").strip())
        if "T" not in (text or "").upper() and ":" not in (text or ""):
            moment = datetime.combine(moment, hour)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.get_default_timezone())
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError):
        return text


def _is_related(query: str, source: Source) -> bool:
    """Return whether a hit belongs to the question, as the built-in search decides it: by score, or by its words."""
    if source.score is None or source.score >= settings.RAG_MIN_SIMILARITY:
        return True
    subject = [word for word in content_words(query) if word not in HINT_WORDS]
    hit_words = set(words(f"{source.title} {source.text}"))
    n_shared = len(hit_words.intersection(subject))
    return not subject or n_shared >= MIN_SHARE * len(subject) or bool(hit_words & names_in(query))


async def _post_search(base: str, body: dict[str, Any]) -> list[Source]:
    """Return the hits, best first. Unusable ones are dropped; a response of nothing else is an error."""
    # No proxy from the environment: the service is inside the installation, and so is its token.
    async with httpx.AsyncClient(timeout=settings.RAG_TIMEOUT_SECS, trust_env=False) as client:
        for path in PATHS:
            status, data = await _post(client, base + path, body)
            if status != httpx.codes.NOT_FOUND:
                break
    if status != httpx.codes.OK:
        raise _SearchFailed(f"the memory service answered {status}", counts=status >= 500)
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _SearchFailed("the memory service answered with something that is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
        raise _SearchFailed("the memory service answered with something that is no search result")
    if answer.get("success") is False:
        raise _SearchFailed("the memory service reported that its search failed")
    hits = [source_from_hit(hit) for hit in answer["results"]]
    sources = [hit for hit in hits if hit is not None]
    if hits and not sources:
        raise _SearchFailed("the memory service answered with results that have no text")
    return sorted(sources, key=lambda source: -(source.score or 0.0))


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[int, bytes]:
    token = mint()  # minted per request: a token is valid once
    headers = {"X-Service-Token": token} if token else {}
    try:
        response = await call_async(client, "POST", url, body=body, headers=headers, max_bytes=MAX_ANSWER_BYTES)
    except AnswerRefused as error:
        raise _SearchFailed("the memory service answered with too much, or compressed") from error
    return response.status_code, response.content
