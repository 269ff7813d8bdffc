"""The neighbours of a test, with an empty Redis between them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.db import connection

from inference.runtime.redis_client import gpu_client
from tests.neighbours.coordinator import NeighbourCoordinator, Wire
from tests.neighbours.pause_manager import PauseManager


@pytest.fixture
def wire(redis_client: "redis.Redis[str]") -> Wire:
    return gpu_client()


@pytest.fixture(params=["v2", "v1"])
def coordinator(wire: Wire, request: pytest.FixtureRequest) -> Iterator[NeighbourCoordinator]:
    neighbour = NeighbourCoordinator(wire, request.param)
    yield neighbour
    neighbour.stop()


@pytest.fixture
def pause_manager(wire: Wire) -> Iterator[Callable[..., PauseManager]]:
    """Makes pause managers, with the arguments of ``PauseManager``."""
    managers: list[PauseManager] = []

    def make(**options: object) -> PauseManager:
        managers.append(PauseManager(wire, **options))  # type: ignore[arg-type]
        return managers[-1]

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def database(tmp_path: Path, transactional_db: None) -> Path:
    """A migrated, empty database."""
    path = tmp_path / "migrated.sqlite3"
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [str(path)])
    return path
