"""The warm-up of the web process before its first request."""

from pathlib import Path

import pytest

from gemma_project.management.commands import web
from inference.config import tokenizer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_tokenizer", None)


def test_the_vocabulary_is_loaded() -> None:
    web.warm_up()
    assert tokenizer._tokenizer is not None


def test_a_model_that_is_not_there_yet_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("django.conf.settings.GEMMA_BACKEND", "llama")
    monkeypatch.setattr("django.conf.settings.GEMMA_MODEL_FILE", tmp_path / "absent.gguf")
    web.warm_up()
    assert tokenizer._tokenizer is None
    assert "absent.gguf" in caplog.text


def test_memories_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("chat.rag.retrieval.local.warm_up", lambda: calls.append("memories"))
    web.warm_up()
    assert calls == ["memories"]
