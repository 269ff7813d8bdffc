"""The official ``anthropic`` package against a running service with scripted answers."""

from collections.abc import Callable, Iterator

import pytest
from anthropic import Anthropic

from tests.clients import anthropic_calls
from tests.clients.service import client_service


@pytest.fixture(scope="module")
def client() -> Iterator[Anthropic]:
    with client_service() as url, Anthropic(base_url=url, api_key="sk-ant-none", timeout=60) as client:
        yield client


@pytest.mark.parametrize("call", anthropic_calls.CALLS, ids=lambda call: call.__name__)
def test_call(call: Callable[[Anthropic], None], client: Anthropic) -> None:
    call(client)
