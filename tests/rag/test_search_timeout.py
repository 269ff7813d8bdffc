"""The built-in search keeps RAG_TIMEOUT_SECS, whatever is slow, and a web process loads its parts at the start."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, transaction
from pytest_django import Settings

from chat.rag.query import RetrievalQuery, RetrievalResult
from chat.rag.retrieval import local
from chat.rag.search import fulltext, hybrid, results
from chat.rag.vectors import embedding
from chat.rag.vectors.index import VectorIndex
from tests.rag.builders import ask, remember, texts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("words_as_vectors")]
TIMEOUT_SECS = 0.3


@pytest.fixture
def release(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The end of everything that hangs."""
    settings.RAG_TIMEOUT_SECS = TIMEOUT_SECS
    event = threading.Event()
    pool = ThreadPoolExecutor(2)
    monkeypatch.setattr(local, "_threads", pool)
    yield event
    event.set()
    pool.shutdown()


def hang(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, release: threading.Event) -> None:
    work: Callable[..., object] = getattr(owner, name)

    def slowly(*args: object, **kwargs: object) -> object:
        release.wait(20)
        return work(*args, **kwargs)

    monkeypatch.setattr(owner, name, slowly)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (embedding, "embed_question"),
        (embedding, "unavailable_reason"),
        (fulltext, "matches"),
        (VectorIndex, "fresh"),
        (hybrid, "allowed_rows"),
        (results, "sources"),
    ],
)
def test_whatever_is_slow(owner: object, name: str, release: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("the budget is due")
    hang(monkeypatch, owner, name, release)
    began = time.monotonic()
    result = ask("budget")
    assert time.monotonic() - began < TIMEOUT_SECS + 1
    assert (result.sources, result.error) == ((), "the memories could not be searched within 0.3 s")
    assert result.latency_ms >= TIMEOUT_SECS * 1000


def test_searches_that_hang_leave_no_queue_behind(release: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    remember("the budget is due")
    calls: list[str] = []
    search = hybrid.search

    def slowly(query: RetrievalQuery) -> RetrievalResult:
        calls.append(query.text)
        release.wait(20)
        return search(query)

    monkeypatch.setattr(hybrid, "search", slowly)
    for number in range(4):
        assert ask(f"budget {number}").error
    release.set()
    assert texts(ask("budget")) == ["the budget is due"]
    assert calls == ["budget 0", "budget 1", "budget"], "two threads; what nobody waits for is not begun"


def test_a_search_within_a_transaction_sees_what_it_wrote() -> None:
    with transaction.atomic():
        remember("the budget is due")
        assert texts(ask("budget")) == ["the budget is due"]


def test_an_error_is_the_caller_s(release: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(query: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(hybrid, "search", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        ask("budget")


class TestWarmUp:
    @pytest.fixture
    def loaded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Sizes of the texts that the model was given."""
        sizes: list[int] = []
        embed = embedding.embed_question

        def noted(text: str, encoding: str) -> object:
            sizes.append(1)
            return embed(text, encoding)

        monkeypatch.setattr(embedding, "embed_question", noted)
        return sizes

    def test_with_memories_the_model_and_the_vectors_are_loaded(self, loaded: list[int]) -> None:
        remember("the budget is due")
        hybrid.INDEX.clear()
        loaded.clear()
        local.warm_up()
        assert loaded == [1]

    def test_without_memories_nothing_is(self, loaded: list[int]) -> None:
        local.warm_up()
        assert loaded == []

    def test_a_database_that_is_away_is_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def away() -> None:
            raise OperationalError("gone")

        monkeypatch.setattr("chat.rag.models.Passage.objects.exists", away)
        local.warm_up()
        assert "memories not loaded yet error=gone" in caplog.text
