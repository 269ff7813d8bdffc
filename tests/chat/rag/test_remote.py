"""Asking the memory service over real HTTP, in all the ways in which it may fail."""

import json
import socket
import time

import pytest
from pytest_django import Settings

from chat.rag.query import RetrievalResult, SourceFilters
from chat.rag.retrieval import remote
from chat.rag.retrieval.remote import search
from inference.auth import service_token
from inference.runtime.circuit_breaker import BreakerState
from tests.chat.memory_service import MEMORY, OLD_HIT, SEGMENT, MemoryService


def ask(query: str = "deadline", *, top_k: int = 5, filters: SourceFilters | None = None) -> RetrievalResult:
    return search(query=query, top_k=top_k, filters=filters or SourceFilters())


def test_what_is_asked(rag: MemoryService) -> None:
    filters = SourceFilters(
        speakers=("Sarah", "John"),
        start_date="2026-01-01",
        end_date="2026-02-01",
        last_n_transcripts=3,
        bias_emotions=("worried",),
    )
    ask("What did Sarah say?", top_k=7, filters=filters)
    assert rag.requests == [
        {
            "path": "/search/semantic",
            "query": "What did Sarah say?",
            "top_k": 7,
            "doc_type": None,
            "start_date": "2026-01-01T00:00:00",
            "end_date": "2026-02-01T23:59:59.999999",
            "last_n_transcripts": 3,
            "speakers": ["Sarah", "John"],
            "bias_emotions": ["worried"],
        }
    ]


@pytest.mark.parametrize(
    ("written", "zone", "sent"),
    [
        ("2026-03-01T14:05:00Z", "UTC", "2026-03-01T14:05:00"),
        ("2026-03-01T14:05:00+02:00", "UTC", "2026-03-01T12:05:00"),
        ("2026-03-01T14:05:00.250Z", "Asia/Tokyo", "2026-03-01T14:05:00.250000"),
        ("2026-03-01T14:05:00", "Asia/Tokyo", "2026-03-01T05:05:00"),
        ("2026-03-01 14:05", "America/New_York", "2026-03-01T19:05:00"),
        ("2026-03-01", "Asia/Tokyo", "2026-02-28T15:00:00"),
        ("yesterday", "UTC", "yesterday"),
        ("0001-01-01", "Asia/Tokyo", "0001-01-01"),
    ],
)
def test_dates_are_sent_in_utc_without_a_zone(
    rag: MemoryService, settings: Settings, written: str, zone: str, sent: str
) -> None:
    settings.TIME_ZONE = zone
    ask(filters=SourceFilters(start_date=written))
    assert rag.requests[0]["start_date"] == sent


class TestFloor:
    """Hits that have nothing to do with the question do not get into the prompt, as with the built-in store."""

    @pytest.mark.parametrize("score", [-0.1, 0.0, 0.039, 0.19])
    def test_a_low_score_without_a_common_word(self, rag: MemoryService, score: float) -> None:
        rag.results = [SEGMENT | {"score": score}, MEMORY | {"score": score}]
        result = ask("Explain quantum computing to me")
        assert (result.sources, result.error) == ((), "")

    @pytest.mark.parametrize(
        "question", ["When is the deadline?", "Explain what Friday means to us", "What did we say again?"]
    )
    def test_words_a_name_and_a_question_without_a_subject_lift_it(self, rag: MemoryService, question: str) -> None:
        rag.results = [SEGMENT | {"score": 0.03}]
        assert len(ask(question).sources) == 1

    def test_no_score_is_no_low_score(self, rag: MemoryService) -> None:
        rag.results = [SEGMENT | {"score": None}]
        assert len(ask("Explain quantum computing").sources) == 1

    def test_it_can_be_turned_off(self, rag: MemoryService, settings: Settings) -> None:
        settings.RAG_MIN_SIMILARITY = -1.0
        rag.results = [SEGMENT | {"score": 0.01}]
        assert len(ask("Explain quantum computing").sources) == 1


def test_what_comes_back(rag: MemoryService) -> None:
    found = ask()
    assert found.error == ""
    assert found.latency_ms > 0
    segment, memory = found.sources
    assert (segment.kind, segment.text, segment.speaker, segment.emotion, segment.start_time) == (
        "transcript_segment",
        "The deadline moved to Friday.",
        "Sarah",
        "worried",
        12.5,
    )
    assert (segment.time, segment.score, segment.doc_id) == ("2026-03-01T14:05:00", 0.91, "seg-7")
    assert (memory.kind, memory.title, memory.doc_id) == ("memory", "Budget", "mem-1")


def test_the_older_form_at_its_older_address(rag: MemoryService) -> None:
    rag.knows, rag.body = ("/search",), json.dumps({"results": [OLD_HIT], "total_results": 1}).encode()
    [source] = ask().sources
    assert [request["path"] for request in rag.requests] == ["/search/semantic", "/search"]
    assert (source.kind, source.speaker, source.emotion, source.time, source.doc_id) == (
        "transcript_segment",
        "John",
        "calm",
        "2026-01-05T08:00:00",
        "d-3",
    )


def test_the_best_come_first_and_no_more_than_asked_for(rag: MemoryService) -> None:
    rag.results = [MEMORY | {"score": score, "id": str(score)} for score in (0.1, 0.9, None, 0.5)]
    assert [source.doc_id for source in ask(top_k=2).sources] == ["0.9", "0.5"]


def test_nothing_found_is_no_error(rag: MemoryService) -> None:
    rag.results = []
    found = ask()
    assert (found.sources, found.error) == ((), "")


def test_each_request_carries_a_fresh_token(rag: MemoryService, settings: Settings) -> None:
    settings.JWT_SECRET = "k" * 40
    rag.knows = ("/search",)
    ask()
    assert len(set(rag.tokens)) == 2
    assert service_token.verify(str(rag.tokens[0]), allowed=frozenset({"gemma-service"})) == "gemma-service"


def test_without_a_key_no_token_is_sent(rag: MemoryService) -> None:
    ask()
    assert rag.tokens == [None]


def test_no_service_is_configured() -> None:
    assert ask() == RetrievalResult(error="no memory service is configured")


def test_a_slash_at_the_end_of_the_address(rag: MemoryService, settings: Settings) -> None:
    settings.RAG_SERVICE_URL = rag.url + "/"
    assert ask().sources
    assert rag.requests[0]["path"] == "/search/semantic"


def test_an_address_with_a_path(rag: MemoryService, settings: Settings) -> None:
    settings.RAG_SERVICE_URL = rag.url + "/rag"
    rag.knows = ("/rag/search/semantic",)
    assert ask().sources


@pytest.mark.parametrize("manner", ["hang", "drip", "drip_headers"])
def test_the_limit_holds_for_the_whole_call(rag: MemoryService, manner: str, settings: Settings) -> None:
    settings.RAG_TIMEOUT_SECS = 0.4
    rag.manner = manner
    started = time.monotonic()
    found = ask()
    assert time.monotonic() - started < 2.0
    assert found.sources == ()
    assert found.error == "the memory service did not answer within 0.4 s"
    assert 350 < found.latency_ms < 2000


def test_the_limit_covers_both_addresses_together(rag: MemoryService, settings: Settings) -> None:
    settings.RAG_TIMEOUT_SECS = 0.4
    rag.knows, rag.manner = ("/search",), "drip"
    assert "within 0.4 s" in ask().error
    assert ask().latency_ms < 2000


@pytest.mark.parametrize(
    ("status", "message"), [(500, "answered 500"), (401, "answered 401"), (302, "answered 302"), (404, "answered 404")]
)
def test_an_error_status(rag: MemoryService, status: int, message: str) -> None:
    rag.status = status
    found = ask()
    assert found.sources == ()
    assert message in found.error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"results"',
        b'{"results": null}',
        b'{"results": {"0": {}}}',
        b'{"success": false, "error": "no index", "results": []}',
        b'{"results": [1, null, "text", {"text": 5.5e400}, {"text": ""}, {"text": ["a"]}, {}]}',
        b"[" * 100_000,
        b'{"results": [' + b'{"text": "x"},' * 3,
    ],
)
def test_garbage_costs_the_sources(rag: MemoryService, body: bytes) -> None:
    rag.body = body
    found = ask()
    assert found.sources == ()
    assert found.error.startswith("the memory service")


def test_an_answer_cut_off(rag: MemoryService) -> None:
    rag.manner = "cut"
    assert "the memory service" in ask().error


def test_an_endless_answer_is_not_read_to_its_end(rag: MemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ANSWER_BYTES", 1000)
    rag.body = b'{"results": [' + b" " * 5000 + b"]}"
    assert "too much" in ask().error


def test_nobody_listens(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.RAG_SERVICE_URL = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert ask().error == "the memory service could not be reached"


@pytest.mark.parametrize("url", ["http://no-such-host.invalid:1", "http://[::1"])
def test_an_address_that_leads_nowhere(settings: Settings, url: str) -> None:
    settings.RAG_SERVICE_URL, settings.RAG_TIMEOUT_SECS = url, 2.0
    found = ask()
    assert found.error.startswith("the memory service")
    assert "127.0.0.1" not in found.error


def test_good_results_among_bad_ones_are_used(rag: MemoryService) -> None:
    rag.results = [
        None,
        {"text": ""},
        SEGMENT,
        {"text": "no metadata"},
        {"text": "odd", "metadata": [1], "score": "high"},
    ]
    assert [source.text for source in ask().sources] == [SEGMENT["text"], "no metadata", "odd"]


def test_a_proxy_of_the_environment_is_not_used(rag: MemoryService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ask().sources


def test_a_long_question_is_shortened(rag: MemoryService) -> None:
    ask("x" * 100_000)
    assert len(rag.requests[0]["query"]) == 2000


class TestBreaker:
    def test_a_service_that_failed_repeatedly_is_not_waited_for(self, rag: MemoryService, settings: Settings) -> None:
        settings.RAG_TIMEOUT_SECS = 0.2
        rag.manner = "hang"
        for _ in range(3):
            assert "did not answer" in ask().error
        n_requests = len(rag.requests)
        started = time.monotonic()
        found = ask()
        assert time.monotonic() - started < 0.1
        assert found.error == "the memory service failed 3 times in a row; it is tried again in 30 s"
        assert len(rag.requests) == n_requests <= 3

    def test_after_the_pause_it_is_asked_again(self, rag: MemoryService, settings: Settings) -> None:
        settings.RAG_BREAKER_FAILURES, settings.RAG_BREAKER_PAUSE_SECS = 1, 0.2
        rag.status = 500
        assert "answered 500" in ask().error
        assert "in a row" in ask().error
        rag.status = 200
        time.sleep(0.25)
        assert ask().sources
        assert remote.breaker_for(rag.url).state is BreakerState.CLOSED

    @pytest.mark.parametrize("status", [400, 401, 404, 422])
    def test_what_may_be_the_questions_fault_does_not_count(self, rag: MemoryService, status: int) -> None:
        rag.status = status
        for _ in range(5):
            assert f"answered {status}" in ask().error

    def test_a_key_of_ours_that_cannot_be_used_does_not_count(self, rag: MemoryService, settings: Settings) -> None:
        settings.JWT_SECRET = "short"
        for _ in range(5):
            assert "could not be reached" in ask().error
        settings.JWT_SECRET = None
        assert ask().sources
