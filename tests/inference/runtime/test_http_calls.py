"""Answers of other services: raw, bounded in bytes, within one deadline, and never decompressed."""

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from inference.runtime.http_calls import AnswerRefused, call, call_async, json_of, open_client

SECS = 1.0
# Of a machine that is busy with other tests; without a deadline the calls would take minutes.
PATIENCE_SECS = 15.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Answer = Callable[[socket.socket], None]


@contextmanager
def served(answer: Answer, requests: list[bytes] | None = None) -> Iterator[str]:
    """Answer each connection's first request with raw bytes; yields the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            received = connection.recv(65536)
            if requests is not None:
                requests.append(received)
            answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE_SECS)


def whole(body: bytes, *fields: bytes) -> Answer:
    head = HEAD + b"".join(field + b"\r\n" for field in fields) + b"Content-Length: %d\r\n\r\n" % len(body)
    return lambda connection: connection.sendall(head + body)


def trickle(start: bytes, piece: bytes) -> Answer:
    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            time.sleep(0.1)
            connection.sendall(piece)

    return send


def flood(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def bomb() -> bytes:
    return gzip.compress(gzip.compress(bytes(20 << 20)))


def called(url: str, **options: object) -> httpx.Response:
    with open_client(url) as client:
        return call(client, "GET", "/", secs=SECS, **options)  # type: ignore[arg-type]


def called_async(url: str, **options: object) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(timeout=SECS, trust_env=False) as client, asyncio.timeout(SECS):
            return await call_async(client, "GET", url, **options)  # type: ignore[arg-type]

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("ask", [called, called_async])


@BOTH
def test_an_answer_is_read(ask: Callable[..., httpx.Response]) -> None:
    requests: list[bytes] = []
    with served(whole(b'{"a": 1}'), requests) as url:
        response = ask(url)
    assert (response.status_code, json_of(response)) == (200, {"a": 1})
    assert b"accept-encoding: identity" in requests[0].lower()


@BOTH
@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"deflate", b"br", b"identity, gzip", b"zstd", b"gzip, gzip"])
def test_a_compressed_answer_is_refused_unread(ask: Callable[..., httpx.Response], coding: bytes) -> None:
    with served(whole(bomb(), b"Content-Encoding: " + coding)) as url, pytest.raises(AnswerRefused, match="compressed"):
        ask(url)


@BOTH
@pytest.mark.parametrize("answer", [flood, whole(b"x" * 5000)], ids=["endless", "announced"])
def test_a_large_answer_is_left(ask: Callable[..., httpx.Response], answer: Answer) -> None:
    with served(answer) as url, pytest.raises(AnswerRefused, match="larger than 4096"):
        ask(url, max_bytes=4096)


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        trickle(HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
        trickle(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        trickle(HEAD, b"X-A: b\r\n"),
        trickle(b"", b"H"),
        trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["body", "chunks", "headers", "status line", "interim answers"],
)
def test_a_trickle_ends_at_the_deadline(ask: Callable[..., httpx.Response], answer: Answer) -> None:
    began = time.monotonic()
    with served(answer) as url, pytest.raises((httpx.TransportError, TimeoutError)):
        ask(url)
    assert time.monotonic() - began < PATIENCE_SECS


def test_the_deadline_of_one_call_does_not_bound_the_next() -> None:
    def answer(connection: socket.socket) -> None:
        for _ in range(3):
            connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            connection.recv(65536)

    with served(answer) as url, open_client(url) as client:
        for _ in range(3):
            assert call(client, "GET", "/", secs=SECS).content == b"{}"
            time.sleep(SECS / 2)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"{", b"\xff", b"", b"9" * 5000])
def test_json_that_cannot_be_decoded_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        json_of(httpx.Response(200, content=body))


def test_redirects_are_not_followed() -> None:
    requests: list[bytes] = []
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with served(lambda connection: connection.sendall(redirect), requests) as url:
        assert called(url).status_code == 302
    assert len(requests) == 1


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with served(whole(json.dumps({"a": 1}).encode())) as url:
        assert json_of(called(url)) == {"a": 1}
