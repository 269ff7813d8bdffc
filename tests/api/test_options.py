"""OPTIONS on every route, and HEAD on every one that has GET."""

import re

import httpx
import pytest

from chat.api.openapi.operations import OPERATIONS
from tests.api.calling import Api
from tests.api.live import count, data_lines, say
from tests.api.raw_http import exchange, request, response_of
from tests.live_stack import LiveStack

ID = "00000000-0000-4000-8000-000000000000"
PATHS = sorted({operation.path for operation in OPERATIONS})
GET_PATHS = sorted({operation.path for operation in OPERATIONS if operation.method == "get"})


def concrete(path: str) -> str:
    return re.sub(r"{\w+}", ID, path)


@pytest.mark.django_db
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.7"])
def test_options_names_the_methods(path: str, address: str) -> None:
    """No credentials are needed for it."""
    answer = Api(address).call("OPTIONS", concrete(path))
    methods = {operation.method.upper() for operation in OPERATIONS if operation.path == path}
    assert answer.status == 204
    assert set(answer.headers["Allow"].split(", ")) == methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


@pytest.mark.django_db
def test_options_of_an_unknown_path() -> None:
    assert Api().call("OPTIONS", "/nothing").outcome == (404, "not_found")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", GET_PATHS)
def test_head_is_get_without_its_body(path: str) -> None:
    client = Api().client
    got, headed = (client.generic(method, concrete(path)) for method in ("GET", "HEAD"))
    assert headed.status_code == got.status_code
    assert headed.headers["Content-Type"] == got.headers["Content-Type"]
    assert headed.getvalue() == b""


def test_head_of_a_stream_does_not_wait_for_it(fake_stack: LiveStack) -> None:
    body = count(1000, delay_ms=50)
    with httpx.stream("POST", f"{fake_stack.url}/chat/stream", json=body, timeout=30) as stream:
        path = f"/chat/stream/{next(data_lines(stream))['generation_id']}"
        raw = exchange(fake_stack.port, request("HEAD", path), patience_secs=3)
    response = response_of(raw)
    assert (response.status, response.headers["content-type"], response.content) == (200, "text/event-stream", b"")


def test_head_and_options_on_the_wire(fake_stack: LiveStack) -> None:
    for path in ("/health", "/api/conversations/", "/memory/list"):
        assert response_of(exchange(fake_stack.port, request("HEAD", path))).content == b""
    for path in ("/chat", "/health", "/api/conversations/"):
        response = response_of(exchange(fake_stack.port, request("OPTIONS", path)))
        assert (response.status, response.content) == (204, b"")
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        assert client.post("/chat", json=say("still here")).json()["response"] == "still here"
