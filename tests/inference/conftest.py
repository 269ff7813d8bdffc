"""Fixtures of most tests here: an empty Redis, and wake-up messages that are recorded instead of delivered."""

import pytest
import redis
from celery import current_app

from inference.runtime.redis_client import shared_client


@pytest.fixture(autouse=True)
def _empty_redis(redis_client: "redis.Redis[str]") -> None:
    """Every test begins with an empty Redis."""


@pytest.fixture(autouse=True)
def notifications(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(task, generation id) of every wake-up message, in order."""
    sent: list[tuple[str, str]] = []

    def send_task(name: str, args: list[str], **_: object) -> None:
        sent.append((name, args[0]))

    monkeypatch.setattr(current_app, "send_task", send_task)
    return sent


@pytest.fixture
def store() -> "redis.Redis[bytes]":
    return shared_client()
