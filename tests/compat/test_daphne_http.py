"""Twisted's and Daphne's internals that the web process relies on."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from twisted.internet.testing import StringTransport

from compat.daphne_http import AdoptingServer, BoundedFactory, BoundedRequest, path_of

# Needs a reactor of its own, so a process of its own.
SERVER = """
import socket, sys
from compat.daphne_http import AdoptingServer

async def application(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s %d" % (scope["path"].encode(), len(body))})

listener = socket.socket(fileno=int(sys.argv[1]))
AdoptingServer(application, listener=listener, largest_body=lambda path: 10 if path == "/small" else 1000).run()
"""


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with socket.socket(request.param, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen(8)
        descriptor = listener.fileno()
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(descriptor)], pass_fds=[descriptor])
        yield host, listener.getsockname()[1]
        server.terminate()
        server.wait(10)


def post(address: tuple[str, int], path: str, n_bytes: int) -> bytes:
    with socket.create_connection(address, timeout=20) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {n_bytes}\r\n\r\n"
        client.sendall(head.encode() + b"x" * n_bytes)
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_a_server_on_our_socket_bounds_each_body_by_its_path(address: tuple[str, int]) -> None:
    assert b"\r\n/small 11\r\n" in post(address, "/small?a=b", 500)
    assert b"\r\n/small 10\r\n" in post(address, "/small", 10)
    assert b"\r\n/large 500\r\n" in post(address, "/large", 500)
    assert b"\r\n/large 1001\r\n" in post(address, "/large", 5000)


class Reading(BoundedRequest):
    """Notes the path that the channel has while the body arrives."""

    paths: list[str] = []

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self.paths.append(path_of(self.channel))

    def process(self) -> None:
        """The test ends with the body."""


def test_a_channel_knows_the_path_before_the_body_is_complete() -> None:
    with socket.socket() as listener:
        server = AdoptingServer(None, listener=listener, largest_body=len)
        server.connections = {}
        protocol = BoundedFactory(server, len).buildProtocol(None)
        protocol.requestFactory = Reading
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"POST /a%20b/c?d=e HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    assert Reading.paths == ["/a%20b/c"]
    assert path_of(object()) == ""


def test_daphne_still_insists_on_an_endpoint() -> None:
    """When it does not, the placeholder in AdoptingServer can go."""
    code = "from daphne.server import Server; Server(None)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1
