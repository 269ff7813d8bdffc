"""Twisted's and Daphne's internals that the web process relies on."""

import socket
import subprocess
import sys

from twisted.internet.testing import StringTransport

from compat.daphne_http import AdoptingServer, BoundedFactory, BoundedRequest, path_of


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


def _no_error(status: int, message: str) -> bytes:
    raise AssertionError(message)


def test_a_channel_knows_the_path_before_the_body_is_complete() -> None:
    with socket.socket() as listener:
        server = AdoptingServer(None, listener=listener, largest_body=len, error_body=_no_error, half_close_secs=1)
        server.connections = {}
        protocol = BoundedFactory(server).buildProtocol(None)
        protocol.requestFactory = Reading
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"POST /a%20b/c?d=e HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    assert Reading.paths == ["/a%20b/c"]
    assert path_of(object()) == ""


def test_daphne_still_insists_on_an_endpoint() -> None:
    """When it does not, the placeholder in AdoptingServer can go."""
    code = "from daphne.server import Server; Server(None)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1
