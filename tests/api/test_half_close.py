"""Clients that shut their sending side after the request: an answer that is ready within the grace is theirs."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.api.live import Line, count, say
from tests.api.raw_http import exchange, request, response_of
from tests.live_stack import LiveStack, running_stack, wait_until

GRACE_SECS = 2.0


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    environment = {"STREAM_GRACE_SECS": str(GRACE_SECS), "GEMMA_CONTEXT_SIZE": "8192", "JSON_PATIENCE_SECS": "60"}
    with running_stack(**environment) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, timeout=30) as client:
        yield client


def post(path: str, body: object, *headers: str) -> bytes:
    return request("POST", path, *headers, body=json.dumps(body).encode())


def stream_lines(raw: bytes) -> list[Line]:
    lines = response_of(raw).content.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def is_idle(client: httpx.Client) -> bool:
    health = client.get("/health").json()
    return bool(health["active"] == 0 and health["queue_depth"] == 0)


def last_message(client: httpx.Client) -> Line:
    conversation = client.get("/api/conversations/?limit=1").json()["results"][0]["id"]
    message: Line = client.get(f"/api/conversations/{conversation}/messages/").json()["results"][-1]
    return message


class TestReadyInTime:
    def test_chat(self, stack: LiveStack) -> None:
        response = response_of(exchange(stack.port, post("/chat", count(5, delay_ms=60)), shut=True))
        assert (response.status, response.json["response"]) == (200, "1 2 3 4 5 ")

    def test_a_stream(self, stack: LiveStack) -> None:
        lines = stream_lines(exchange(stack.port, post("/chat/stream", count(5, delay_ms=60)), shut=True))
        assert "".join(line["token"] for line in lines) == "1 2 3 4 5 "
        assert lines[-1]["finish_reason"] == "stop"

    def test_a_raw_prompt(self, stack: LiveStack) -> None:
        response = response_of(exchange(stack.port, post("/generate", {"prompt": "[[say: raw]]"}), shut=True))
        assert (response.status, response.json["text"]) == (200, "raw")

    @pytest.mark.parametrize("path", ["/", "/health", "/api/conversations/", "/api/schema", "/admin/login/"])
    def test_a_get(self, path: str, stack: LiveStack) -> None:
        raw = exchange(stack.port, request("GET", path), shut=True)
        assert response_of(raw).status == 200

    def test_a_refusal(self, stack: LiveStack) -> None:
        response = response_of(exchange(stack.port, post("/chat", {"messages": 5}), shut=True))
        assert response.outcome == (400, "invalid_request")

    def test_a_client_that_keeps_connections_alive(self, stack: LiveStack) -> None:
        """Its connection ends with the answer: no further request can come."""
        began = time.monotonic()
        raw = exchange(stack.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", shut=True)
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert time.monotonic() - began < GRACE_SECS

    def test_http_1_0(self, stack: LiveStack) -> None:
        raw = exchange(stack.port, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", shut=True)
        assert response_of(raw).status == 200

    def test_requests_sent_at_once(self, stack: LiveStack) -> None:
        one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert exchange(stack.port, one * 3, shut=True).count(b"HTTP/1.1 200 OK") == 3


class TestTooLate:
    @pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
    def test_an_answer_is_cancelled_after_the_grace(self, path: str, stack: LiveStack, client: httpx.Client) -> None:
        """Once, not a grace for the connection and another for the reader."""
        began = time.monotonic()
        exchange(stack.port, post(path, count(1000, delay_ms=50)), shut=True)
        assert GRACE_SECS - 0.2 < time.monotonic() - began < GRACE_SECS + 2
        wait_until(lambda: is_idle(client), timeout_secs=GRACE_SECS - 0.3, what="the answer is stopped")
        message = last_message(client)
        assert (message["status"], message["finish_reason"]) == ("interrupted", "cancelled")
        assert message["content"].startswith("1 2")

    def test_what_goes_on_alone_goes_on(self, stack: LiveStack, client: httpx.Client) -> None:
        body = post("/chat", count(50, delay_ms=60), "Idempotency-Key: half")
        assert exchange(stack.port, body, shut=True) == b""
        wait_until(lambda: is_idle(client), timeout_secs=20, what="the answer is complete")
        assert last_message(client)["status"] == "complete"

    def test_a_client_that_has_gone_ends_a_stream_by_a_failed_write(self, stack: LiveStack) -> None:
        """Closed, not half-closed: the first token is refused by its machine, long before the grace is over."""
        body = post("/chat/stream", count(1000, delay_ms=20))
        before = stack.output.count("cancelled after disconnect")
        with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as client:
            client.sendall(body)
            client.recv(100)
        wait_until(
            lambda: stack.output.count("cancelled after disconnect") > before,
            timeout_secs=GRACE_SECS + 2,
            what="the answer is stopped",
        )


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /health HTTP/1.0\n\n",
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{}",
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
    ids=["headers", "line feeds alone", "a body", "chunks"],
)
def test_a_request_that_ends_too_early(data: bytes, stack: LiveStack) -> None:
    assert response_of(exchange(stack.port, data, shut=True)).outcome == (400, "invalid_request")


def test_a_connection_without_a_request_is_closed(stack: LiveStack) -> None:
    assert exchange(stack.port, b"", shut=True) == b""


def test_say_is_still_answered(client: httpx.Client) -> None:
    """After all of these the service is whole."""
    assert client.post("/chat", json=say("whole")).json()["response"] == "whole"
