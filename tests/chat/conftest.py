"""Every test of this folder talks to the fake model, with a short system prompt."""

from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings

from chat.rag.retrieval import remote
from inference.config import tokenizer
from inference.config.tokenizer import Tokenizer
from tests.chat.memory_service import MemoryService, memory_service
from tests.chat.vocabularies import fake_tokenizer

SYSTEM = "You are kind."


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.GEMMA_SYSTEM_PROMPT = SYSTEM
    settings.GEMMA_CHAT_FORMAT = "auto"
    settings.RAG_SERVICE_URL = None
    settings.RAG_DEFAULT = False
    monkeypatch.setattr(tokenizer, "_tokenizer", fake_tokenizer())


@pytest.fixture
def use_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tokenizer], None]:
    """Put another tokenizer in this process's place."""
    return lambda other: monkeypatch.setattr(tokenizer, "_tokenizer", other)


@pytest.fixture
def rag(settings: Settings) -> Iterator[MemoryService]:
    """A memory service, with a time limit of one second."""
    remote.breaker_for.cache_clear()  # a port may come again
    with memory_service() as service:
        settings.RAG_SERVICE_URL = service.url
        settings.RAG_TIMEOUT_SECS = 1.0
        yield service
