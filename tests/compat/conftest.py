"""A server of compat.daphne_http in a process of its own."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

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
AdoptingServer(
    application,
    listener=listener,
    largest_body=lambda path: 10 if path == "/small" else 1000,
    error_body=lambda status, message: b"%d %s" % (status, message.encode()),
    half_close_secs=1,
).run()
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
