"""Fixtures of the tests of the interfaces."""

from collections.abc import Iterator

import pytest
import redis
from celery import current_app
from pytest_django import Settings

from chat.streaming import disconnect
from tests.live_stack import LiveStack


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Settings) -> None:
    """A real hash takes half a second on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def no_broker(redis_client: "redis.Redis[str]", monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty Redis, no broker for wake-up messages, and a process that goes on afterwards."""
    monkeypatch.setattr(current_app, "send_task", lambda *args, **options: None)
    yield
    disconnect.shutdown.is_set = False


@pytest.fixture(scope="package")
def fake_stack() -> Iterator[LiveStack]:
    """A running service with scripted answers, shared by all tests here that need real sockets."""
    # Whole answers keep their status however long they take; impatient clients have tests of their own.
    environment = {"STREAM_GRACE_SECS": "0.5", "GEMMA_CONTEXT_SIZE": "8192", "JSON_PATIENCE_SECS": "60"}
    stack = LiveStack(backend="fake", environment=environment)
    try:
        # A short wait for a lock, so that a locked database is seen within a test's patience.
        stack.environment["DATABASE_URL"] = f"sqlite:///{stack.data_dir}/gemma.sqlite3?timeout=1"
        stack.start()
        yield stack
    finally:
        stack.clean_up()
