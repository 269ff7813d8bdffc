"""/health: its status, its facts, and secrets that it must not show."""

import asyncio
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path

import msgspec
import pytest
import redis
from django.db import OperationalError
from pytest_django import Settings
from redis.exceptions import OutOfMemoryError  # type: ignore[attr-defined]

from chat.api import health_view
from chat.prompting.chat_templates import choose_format
from chat.rag.indexing.indexer import add_note, index_transcript
from chat.rag.records import SegmentIn, TranscriptIn
from chat.rag.retrieval import remote
from inference.models import Generation, Priority, Status
from inference.monitoring.worker_report import WorkerReport
from inference.runtime import redis_client
from inference.runtime.threads import N_THREADS, in_thread
from tests.api.calling import Answer, Api
from tests.chat.vocabularies import CHATML_TEMPLATE, fake_tokenizer

pytestmark = pytest.mark.django_db(transaction=True)
REPORT = WorkerReport(pid=1, model_name="a-model", context_size=100, gpu_layers=3, model_loaded=True, active=2)
FIELDS = {"status", "model_loaded", "model_on_gpu", "model_name", "context_size", "gpu_layers", "queue_depth", "active"}
FIELDS |= {"trained_context", "kv_cache_mb", "gpu"}
DEPENDENCIES = {"database", "redis", "worker", "gpu_coordinator", "rag_service", "chat_template"}
SECRET = "/secret/path at 10.0.0.9"


def get() -> Answer:
    return Api("203.0.113.7").get("/health")  # open to callers without credentials


@pytest.fixture(autouse=True)
def report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_view, "last_report", lambda: REPORT)


def broken(error: Exception) -> object:
    """Stands for a client or a queryset of which every use fails."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise error

    return Broken()


def test_all_is_well() -> None:
    answer = get()
    assert answer.status == 200
    assert set(answer.body) == FIELDS | DEPENDENCIES
    assert answer.body["status"] == "healthy"
    assert (answer.body["model_loaded"], answer.body["model_on_gpu"]) == (True, False)
    assert (answer.body["model_name"], answer.body["context_size"], answer.body["gpu_layers"]) == ("a-model", 100, 3)
    for name in ("database", "redis", "worker"):
        assert answer.body[name]["ok"] is True
        assert answer.body[name]["latency_ms"] >= 0
    assert answer.body["gpu_coordinator"]["ok"] is True
    assert answer.body["gpu_coordinator"]["detail"] == "built in: the GPU is free, 0 waiting, tenants: 0"


def test_a_refused_template_degrades_the_service_and_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get().body["chat_template"]["ok"] is None
    refused = choose_format(fake_tokenizer(template="{{ functions.x }}"), "auto")
    monkeypatch.setattr(health_view, "get_format", lambda: refused)
    answer = get()
    assert (answer.status, answer.body["status"], answer.body["chat_template"]["ok"]) == (200, "degraded", False)
    detail = answer.body["chat_template"]["detail"]
    assert detail == "not used: the chat template cannot render a plain dialogue: 'functions' is undefined"
    used = choose_format(fake_tokenizer(template=CHATML_TEMPLATE), "auto")
    monkeypatch.setattr(health_view, "get_format", lambda: used)
    assert (get().body["status"], get().body["chat_template"]["detail"]) == ("healthy", "used")


def test_the_built_in_store_of_memories_is_counted() -> None:
    segments = (SegmentIn(text="Hello."), SegmentIn(text="Hi."))
    index_transcript(owner="", transcript=TranscriptIn(job_id="j", segments=segments))
    add_note(owner="user:1", title="", body="Mine.")
    facts = get().body["rag_service"]
    assert facts["ok"] is True
    assert facts["detail"] == "built in: 1 transcripts, 2 segments, 1 notes; found by meaning and words"


def test_without_the_embedding_model_it_is_said(settings: Settings, tmp_path: Path) -> None:
    settings.RAG_EMBEDDING_PATH = tmp_path / "secret.onnx"
    answer = get()
    assert (answer.status, answer.body["status"], answer.body["rag_service"]["ok"]) == (200, "degraded", False)
    assert answer.body["rag_service"]["detail"].endswith(
        "found by their words alone: the embedding model cannot be read"
    )
    assert "secret" not in str(answer.body)


def test_what_the_breaker_thinks_of_the_memory_service(settings: Settings, neighbour: "Neighbour") -> None:
    settings.RAG_SERVICE_URL, settings.RAG_BREAKER_FAILURES = neighbour.url, 1
    remote.breaker_for.cache_clear()
    assert get().body["rag_service"]["breaker"] == "closed"
    breaker = remote.breaker_for(neighbour.url)
    breaker.failed(breaker.admit() or 0)
    facts = get().body["rag_service"]
    assert (facts["ok"], facts["breaker"]) == (True, "open")


def test_the_counts_come_from_the_rows() -> None:
    for status in (Status.PREPARING, Status.QUEUED, Status.QUEUED, Status.RUNNING, Status.COMPLETE, Status.FAILED):
        Generation.objects.create(owner="local", status=status, priority=Priority.INTERACTIVE)
    answer = get()
    assert (answer.body["queue_depth"], answer.body["active"]) == (3, 1)


def test_a_card_is_told_with_its_memory_and_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"state": "gpu", "card": "a card", "reason": ""}
    keeper = {"coordinator": "builtin", "state": "held", "detail": "", "breaker": "closed", "lease_epoch": 3}
    report = WorkerReport(
        pid=1,
        model_loaded=True,
        model_on_gpu=True,
        card="a card",
        vram_used_mb=900,
        vram_total_mb=8192,
        placement=facts,
        coordinator=keeper,
    )
    monkeypatch.setattr(health_view, "last_report", lambda: report)
    body = get().body
    assert body["gpu"] == {"name": "a card", "state": "gpu", "card": "a card", "reason": "", "lease": keeper}
    assert (body["vram_used_mb"], body["vram_total_mb"], body["model_on_gpu"]) == (900, 8192, True)
    assert body["gpu_coordinator"]["detail"] == "built in: the GPU is free, 0 waiting, tenants: 0"


def test_a_full_redis_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would answer a ping."""
    monkeypatch.setattr(redis_client, "shared_client", lambda: broken(OutOfMemoryError(SECRET)))
    answer = get()
    assert (answer.status, answer.body["redis"]["detail"]) == (503, "is full")


@pytest.mark.parametrize(("database", "store", "worker"), list(product([True, False], repeat=3)))
def test_what_is_needed_decides(database: bool, store: bool, worker: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not database:
        monkeypatch.setattr(Generation, "objects", broken(OperationalError(SECRET)))
    if not store:
        monkeypatch.setattr(redis_client, "shared_client", lambda: broken(redis.ConnectionError(SECRET)))
    if not worker:
        monkeypatch.setattr(health_view, "last_report", lambda: None)
    answer = get()
    is_fine = database and store and worker
    assert answer.status == (200 if is_fine else 503)
    assert answer.body["status"] == ("healthy" if is_fine else "unhealthy")
    assert [answer.body[name]["ok"] for name in ("database", "redis", "worker")] == [database, store, worker]
    assert set(answer.body) == FIELDS | DEPENDENCIES
    assert "secret" not in str(answer.body)
    assert "10.0.0.9" not in str(answer.body)


def test_a_worker_without_its_model_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_view, "last_report", lambda: WorkerReport(pid=1))
    answer = get()
    assert (answer.status, answer.body["model_loaded"]) == (503, False)
    assert answer.body["worker"]["ok"] is False


class Neighbour:
    """Another service, which answers ``/health`` with one status, or hangs."""

    def __init__(self) -> None:
        self.status = 200
        self.delay_secs = 0.0
        neighbour = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(neighbour.delay_secs)
                self.send_response(neighbour.status if self.path == "/health" else 404)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keeps quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    neighbour = Neighbour()
    yield neighbour
    neighbour.server.shutdown()
    neighbour.server.server_close()


@pytest.mark.parametrize(
    ("setting", "name"), [("GPU_COORDINATOR_URL", "gpu_coordinator"), ("RAG_SERVICE_URL", "rag_service")]
)
class TestNeighbours:
    """They cost quality, never the service."""

    def test_well(self, setting: str, name: str, settings: Settings, neighbour: Neighbour) -> None:
        setattr(settings, setting, neighbour.url)
        answer = get()
        assert (answer.status, answer.body["status"], answer.body[name]["ok"]) == (200, "healthy", True)

    def test_broken(self, setting: str, name: str, settings: Settings, neighbour: Neighbour) -> None:
        setattr(settings, setting, neighbour.url)
        neighbour.status = 500
        answer = get()
        assert (answer.status, answer.body["status"], answer.body[name]["ok"]) == (200, "degraded", False)

    @pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no.such.host.invalid:8002", "http://[::1"])
    def test_away(self, url: str, setting: str, name: str, settings: Settings) -> None:
        setattr(settings, setting, url)
        answer = get()
        assert (answer.status, answer.body["status"], answer.body[name]["ok"]) == (200, "degraded", False)
        assert url.removeprefix("http://") not in str(answer.body)

    def test_hanging(self, setting: str, name: str, settings: Settings, neighbour: Neighbour) -> None:
        setattr(settings, setting, neighbour.url)
        neighbour.delay_secs = 3
        began = time.monotonic()
        answer = get()
        assert (answer.status, answer.body[name]["ok"]) == (200, False)
        assert time.monotonic() - began < 2.5


def test_what_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(health_view, "last_report", lambda: released.wait(10) and None)
    began = time.monotonic()
    answer = get()
    released.set()
    assert time.monotonic() - began < 3
    assert (answer.status, answer.body["worker"]["ok"]) == (503, False)
    assert answer.body["database"]["ok"] is True


def test_checks_wait_for_no_other_work() -> None:
    released = threading.Event()

    async def work() -> None:
        await asyncio.gather(*(in_thread(released.wait, 30) for _ in range(2 * N_THREADS)))

    busy = threading.Thread(target=asyncio.run, args=(work(),))
    busy.start()
    try:
        answers = [get() for _ in range(3)]
    finally:
        released.set()
        busy.join()
    assert [answer.status for answer in answers] == [200] * 3
    assert all(answer.body[name]["ok"] for answer in answers for name in ("database", "redis", "worker"))


@pytest.mark.parametrize("fault", ["", "the GPU coordinator answers with status 401"])
def test_a_coordinator_that_refuses_every_call_is_not_well(
    fault: str, settings: Settings, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GPU_COORDINATOR_URL = neighbour.url
    report = msgspec.structs.replace(REPORT, coordinator={"state": "refused", "fault": fault})
    monkeypatch.setattr(health_view, "last_report", lambda: report)
    coordinator = get().body["gpu_coordinator"]
    assert coordinator["ok"] is not bool(fault)
    assert ("401" in coordinator["detail"]) is bool(fault)
