"""An empty Redis and an empty card for every test of the room."""

from collections.abc import Callable, Iterator

import pytest
import redis

from inference.runtime.redis_client import gpu_client
from tests.gpu.tenants import Transcription, Wire


@pytest.fixture
def wire(redis_client: "redis.Redis[str]") -> Wire:
    """The Redis of coordinator and tenants, emptied before the test."""
    return gpu_client()


@pytest.fixture
def transcription(wire: Wire) -> Iterator[Callable[..., Transcription]]:
    """Makes residents; arguments as ``Transcription`` has them."""
    made: list[Transcription] = []

    def make(**options: object) -> Transcription:
        made.append(Transcription(wire, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for resident in made:
        resident.leave()
