"""Twisted's channel and Autobahn's handshake, whose internals carry the refusals of the web process."""

import socket
from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.http import HTTPChannel, Request

from compat.connection_limits import ConnectionLimits
from compat.half_close import secs_since_half_close
from compat.twisted_http import JsonChannel, ascii_target

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET % b"" + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (GET % b"" + b"no colon\r\n\r\n", 400),
        (GET % b"" + b"Upgrade: websocket\r\n\r\n", 400),
        (GET % (b"x" * 20_000), 414),
        (GET % b"" + b"A: " + b"x" * 20_000, 431),
        (GET % b"" + b"A: b\r\n" * 600, 431),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\r\nHost", 400),
    ],
)
def test_a_refusal_has_the_application_s_body(data: bytes, status: int, address: tuple[str, int]) -> None:
    head, _, body = exchange(address, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert body.startswith(b"%d " % status)


def test_a_half_closed_connection_is_answered(address: tuple[str, int]) -> None:
    assert b"\r\n/a 0\r\n" in exchange(address, GET % b"a" + b"\r\n")


def test_twisted_itself_answers_refusals_without_a_body() -> None:
    """When it does not, JsonChannel may become shorter."""
    written: list[bytes] = []
    channel = HTTPChannel()
    channel.transport = type("Transport", (), {"write": staticmethod(written.append)})()
    channel.loseConnection = lambda: None
    channel._respondToBadRequestAndDisconnect()
    assert written == [b"HTTP/1.1 400 Bad Request\r\n\r\n"]


def test_characters_of_a_request_line_are_escaped() -> None:
    assert ascii_target("GET /ü?ß=%C3 HTTP/1.1".encode()) == b"GET /%C3%BC?%C3%9F=%C3 HTTP/1.1"
    with pytest.raises(UnicodeDecodeError):
        ascii_target(b"GET /\xfc HTTP/1.1")


def test_outside_of_a_request_no_client_has_left() -> None:
    assert secs_since_half_close() == 0


class TestTimeout:
    @pytest.fixture
    def transport(self) -> StringTransport:
        transport = StringTransport()
        transport.loseWriteConnection = lambda: None
        return transport

    def connected(self, transport: StringTransport) -> JsonChannel:
        channel = JsonChannel()
        channel.factory = SimpleNamespace(
            error_body=lambda status, message: b"%d" % status,
            half_close_secs=1.0,
            head_secs=20.0,
            limits=ConnectionLimits(10),
            largest_body=len,
        )
        channel.requestFactory = Request
        channel.callLater = Clock().callLater
        channel.makeConnection(transport)
        return channel

    @pytest.mark.parametrize(
        "data",
        [b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"],
        ids=["request line", "headers", "body"],
    )
    def test_the_rest_of_a_request_that_does_not_come(self, data: bytes, transport: StringTransport) -> None:
        channel = self.connected(transport)
        channel.dataReceived(data)
        channel.timeoutConnection()
        assert transport.value().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert transport.value().endswith(b"\r\n\r\n408")

    def test_an_idle_connection_is_closed_without_a_word(self, transport: StringTransport) -> None:
        self.connected(transport).timeoutConnection()
        assert (transport.value(), transport.disconnecting) == (b"", True)
