"""Fixtures of the whole suite. The private environment is made here, before pytest-django reads the settings."""

from collections.abc import Iterator

from tests import private_environment

TEST_DIRECTORY = private_environment.enter()

import django  # noqa: E402  the settings read the environment made above
import pytest  # noqa: E402
import redis  # noqa: E402
from django.conf import settings  # noqa: E402

django.setup()


@pytest.fixture
def redis_client() -> Iterator["redis.Redis[str]"]:
    """A client of the test process's own Valkey, emptied before the test."""
    client = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
    client.flushall()
    yield client
    client.close()
