"""Refusals below Django: bytes that never become a request get the error of all others, and one line in the log."""

import socket
import ssl

import httpx
import pytest

from tests.api.raw_http import RawResponse, exchange, request, response_of
from tests.live_stack import LiveStack, wait_until

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

MALFORMED = {
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "an unknown transfer encoding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "malformed chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n",
    "a blank in the path": b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.7\r\n",
    "bytes that are no text": b"GET /?search=M\xfcller HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a header without a colon": GET + b"nonsense\r\n\r\n",
    "a NUL in a header": GET + b"X-A: a\0b\r\n\r\n",
    "a vertical tab in a header": GET + b"X-A: a\x0bb\r\nConnection: close\r\n\r\n",
    "a header name with a blank": GET + b"X A: b\r\n\r\n",
    "a subprotocol that is not ASCII": GET + b"Sec-WebSocket-Protocol: \xc3\xa9\r\nConnection: close\r\n\r\n",
    "a WebSocket without a key": request("GET", "/ws/chat", "Upgrade: websocket"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 512,
}
TOO_LONG = {
    "a search": b"GET /api/conversations/?search=" + b"x" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path": b"GET /" + b"x" * 16_380 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of many characters": b"GET /" + "ü".encode() * 8_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a line without end": b"GET /" + b"x" * 500_000,
}
TOO_LARGE = {
    "17 KB of cookies": GET
    + b"Cookie: "
    + b"; ".join([b"name%d=%s" % (n, b"v" * 80) for n in range(190)])
    + b"\r\n\r\n",
    "many headers": GET + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 200) for n in range(100)) + b"\r\n",
    "one long header": GET + b"Authorization: Bearer " + b"x" * 17_000 + b"\r\n\r\n",
    "many short headers": GET + b"".join(b"a%d: b\r\n" % n for n in range(600)) + b"\r\n",
    "a header without end": GET + b"X-A: " + b"x" * 500_000,
    "a folded header": GET + b"X-A: a\r\n" + b" b\r\n" * 9_000 + b"\r\n",
}


def refused(stack: LiveStack, data: bytes) -> RawResponse:
    """Return the error for ``data``, after checking its form and that the log has one line more."""
    before = stack.output
    response = response_of(exchange(stack.port, data))
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["connection"] == "close"
    assert response.json["error"]["message"]
    wait_until(lambda: " refused " in stack.output[len(before) :], timeout_secs=5, what="the refusal is logged")
    logged = stack.output[len(before) :]
    assert logged.count(" refused ") == 1, logged
    assert "Traceback" not in logged
    return response


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request(name: str, fake_stack: LiveStack) -> None:
    assert refused(fake_stack, MALFORMED[name]).outcome == (400, "invalid_request")


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_request_line_that_is_too_long(name: str, fake_stack: LiveStack) -> None:
    assert refused(fake_stack, TOO_LONG[name]).outcome == (414, "uri_too_long")


@pytest.mark.parametrize("name", TOO_LARGE)
def test_headers_that_are_too_large(name: str, fake_stack: LiveStack) -> None:
    assert refused(fake_stack, TOO_LARGE[name]).outcome == (431, "headers_too_large")


def test_a_client_of_another_protocol_is_told_soon(fake_stack: LiveStack) -> None:
    with socket.create_connection(("127.0.0.1", fake_stack.port), timeout=5) as plain:
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="localhost")


def test_a_refused_client_that_goes_on_sending_reads_its_answer(fake_stack: LiveStack) -> None:
    """Unread bytes in a socket that closes would reset the connection before the client has read."""
    with socket.create_connection(("127.0.0.1", fake_stack.port), timeout=20) as client:
        client.sendall(POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n")
        for _ in range(40):
            client.sendall(b"x" * 50_000)
        assert response_of(b"".join(iter(lambda: client.recv(4096), b""))).outcome == (400, "invalid_request")


def test_a_request_behind_a_good_one_is_refused_after_it(fake_stack: LiveStack) -> None:
    raw = exchange(fake_stack.port, GET + b"\r\n" + MALFORMED["a header without a colon"])
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response_of(raw[raw.index(b"HTTP/1.1 400") :]).outcome == (400, "invalid_request")


def test_a_client_does_not_choose_the_prefix_of_the_paths(fake_stack: LiveStack) -> None:
    for value in ("/chat", "é"):
        response = response_of(exchange(fake_stack.port, request("GET", "/health", f"Daphne-Root-Path: {value}")))
        assert response.status == 200


def old_request(target: str, *fields: str) -> bytes:
    """Return a GET of HTTP/1.0, as nginx forwards it with a plain ``proxy_pass``."""
    return "\r\n".join([f"GET {target} HTTP/1.0", "Host: 127.0.0.1", "Connection: close", *fields, "", ""]).encode()


@pytest.mark.parametrize("target", ["/api/conversations/", "/memory/stats", "/v1/models"])
def test_a_proxy_that_speaks_1_0_is_not_the_local_user(target: str, fake_stack: LiveStack) -> None:
    assert response_of(exchange(fake_stack.port, old_request(target))).status == 401
    assert response_of(exchange(fake_stack.port, old_request("/health"))).status == 200, "open to everybody"


def test_a_websocket_needs_1_1(fake_stack: LiveStack) -> None:
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    response = response_of(exchange(fake_stack.port, old_request("/ws/chat/", *upgrade)))
    assert response.outcome == (400, "invalid_request")


@pytest.fixture(scope="module")
def titles(fake_stack: LiveStack) -> list[str]:
    """Titles of conversations that are stored."""
    titles = ["Müller & Söhne", "東京タワー", "naïve 😀 café", "Ελλάδα"]
    with httpx.Client(base_url=fake_stack.url, timeout=30) as client:
        for title in titles:
            made = client.post("/chat", json={"messages": [{"role": "user", "content": f"[[say: ok]] {title}"}]})
            path = f"/api/conversations/{made.json()['conversation_id']}/"
            assert client.patch(path, json={"title": title}).status_code == 200
    return titles


@pytest.mark.parametrize("search", ["Müller", "東京", "😀", "Ελλάδα"])
def test_a_search_whose_characters_are_not_escaped(search: str, titles: list[str], fake_stack: LiveStack) -> None:
    target = f"/api/conversations/?search={search}"
    response = response_of(exchange(fake_stack.port, request("GET", target)))
    assert response.status == 200
    # The service is shared: other conversations may match, too.
    matching = [row["title"] for row in response.json["results"] if row["title"] in titles]
    assert matching == [title for title in titles if search in title]


@pytest.mark.parametrize("path", ["/transcript/Gespräch", "/gemma/release/東京", "/überall"])
def test_a_path_whose_characters_are_not_escaped(path: str, fake_stack: LiveStack) -> None:
    targets = (path, httpx.URL(path).raw_path)
    raw, escaped = (response_of(exchange(fake_stack.port, request("GET", target))) for target in targets)
    assert raw.outcome == escaped.outcome
