"""What the tests of /v1/messages share."""

from collections.abc import Iterator

import httpx
import pytest

from tests.live_stack import LiveStack


@pytest.fixture
def client(fake_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake_stack.url, timeout=60) as client:
        yield client
