"""What most tests here share: an empty Redis, and rings that are counted instead of delivered."""

import pytest
import redis
from celery import current_app

from inference.runtime.redis_client import shared_client


@pytest.fixture(autouse=True)
def _empty_redis(redis_client: "redis.Redis[str]") -> None:
    """Every test begins with an empty Redis."""


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(task, generation id) of every ring, in order."""
    rung: list[tuple[str, str]] = []

    def send_task(name: str, args: list[str], **_: object) -> None:
        rung.append((name, args[0]))

    monkeypatch.setattr(current_app, "send_task", send_task)
    return rung


@pytest.fixture
def store() -> "redis.Redis[bytes]":
    return shared_client()
