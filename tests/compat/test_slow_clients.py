"""Clients that send a byte now and then, or a message in thousands of pieces, or read nothing of what they are sent."""

import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

# Echoes every frame tenfold, as an error of a frame repeats parts of it.
SERVER = """
import socket, sys
from compat import twisted_http
twisted_http.BODY_SECS = 1.0
from compat.daphne_http import AdoptingServer

async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"] * 10})
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})

AdoptingServer(
    application,
    listener=socket.socket(fileno=int(sys.argv[1])),
    largest_body=lambda path: 1000,
    error_body=lambda status, message: b"%d %s" % (status, message.encode()),
    half_close_secs=1,
    head_secs=1,
    websocket_max_message_size=1_000_000,
).run()
"""
PATIENCE_SECS = 20.0
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
TEXT, CONTINUED = 1, 0


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, int]]:
    """Return port and process of a server."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(listener.fileno())], pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
        assert is_served(port)
        yield port, process.pid
        process.terminate()
        process.wait(10)


def is_served(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECS) as client:
        client.sendall(WHOLE)
        return b"served" in b"".join(iter(lambda: client.recv(4096), b""))


def frame(data: bytes, code: int = TEXT, *, is_final: bool = True) -> bytes:
    """Return a client's frame, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack("!H", size)
    return bytes([(0x80 if is_final else 0) | code]) + length + bytes(4) + data


def upgraded(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECS)
    client.sendall(UPGRADE)
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    assert head.startswith(b"HTTP/1.1 101 ")
    return client


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"G"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"b"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["request line", "headers", "one header", "body", "chunks"],
)
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second request"])
def test_a_trickle_ends(server: tuple[int, int], start: bytes, piece: bytes, is_second: bool) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=PATIENCE_SECS) as client:
        if is_second:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"served") and b"served" not in received:
                received += client.recv(4096)
        client.sendall(start)
        client.settimeout(0.1)
        deadline = time.monotonic() + PATIENCE_SECS
        received = b""
        while time.monotonic() < deadline:
            with suppress(TimeoutError):
                if not (part := client.recv(4096)):
                    break
                received += part
            with suppress(OSError):
                client.sendall(piece)
        assert time.monotonic() < deadline, "the connection is still open"
        assert b" 408 " in received or not received


def test_one_that_sends_nothing_is_closed(server: tuple[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=PATIENCE_SECS) as client:
        assert client.recv(4096) == b""


def test_a_slow_request_within_the_time_is_served(server: tuple[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=PATIENCE_SECS) as client:
        for piece in (WHOLE[:10], WHOLE[10:30], WHOLE[30:]):
            client.sendall(piece)
            time.sleep(0.1)
        assert b"served" in b"".join(iter(lambda: client.recv(4096), b""))


def test_an_idle_connection_between_two_requests_stays(server: tuple[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=PATIENCE_SECS) as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while b"served" not in received:
                received += client.recv(4096)
            time.sleep(1.5)


def test_half_open_connections_shut_nobody_out(server: tuple[int, int]) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_clients = min(300, soft - 200)
    clients = []
    for _ in range(n_clients):
        client = socket.create_connection(("127.0.0.1", server[0]), timeout=PATIENCE_SECS)
        client.sendall(WHOLE[:20])
        clients.append(client)
    assert is_served(server[0])
    for client in clients:
        client.close()


def test_frames_of_a_socket_still_come_in_order(server: tuple[int, int]) -> None:
    with upgraded(server[0]) as client:
        client.sendall(b"".join(frame(b"%02d" % number) for number in range(50)))
        received = b""
        while len(received) < 50 * 22:
            received += client.recv(65536)
    assert [received[start + 2 : start + 4] for start in range(0, 50 * 22, 22)] == [
        b"%02d" % number for number in range(50)
    ]


def test_a_message_has_a_bounded_number_of_fragments(server: tuple[int, int]) -> None:
    received = b""
    with upgraded(server[0]) as client:
        pieces = frame(b"x", is_final=False) + frame(b"x", CONTINUED, is_final=False) * 20_000
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(pieces)
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                received += part
    assert b"\x03\xf0" in received, "close code 1008"


def test_a_message_in_a_few_hundred_fragments_is_one_message(server: tuple[int, int]) -> None:
    with upgraded(server[0]) as client:
        rest = b"".join(frame(b"b", CONTINUED, is_final=number == 499) for number in range(500))
        client.sendall(frame(b"a", is_final=False) + rest)
        received = b""
        while len(received) < 5010:
            received += client.recv(65536)
    assert received.count(b"a") == 10


def test_a_flood_of_frames_leaves_others_their_turn(server: tuple[int, int]) -> None:
    with upgraded(server[0]) as client:
        client.setblocking(False)
        flood = frame(b"x") * 10_000
        for _ in range(20):
            with suppress(BlockingIOError):
                client.send(flood)
            began = time.monotonic()
            assert is_served(server[0])
            assert time.monotonic() - began < 5.0


def test_a_client_that_reads_nothing_grows_nobody(server: tuple[int, int]) -> None:
    port, pid = server
    before = resident_bytes(pid)
    with upgraded(port) as client:
        client.setblocking(False)
        sent, deadline = 0, time.monotonic() + 3.0
        data = frame(b"x" * 60_000)
        while time.monotonic() < deadline:
            try:
                sent += client.send(data)
            except BlockingIOError:
                time.sleep(0.01)
        assert resident_bytes(pid) - before < 150 << 20, "600 KB are sent for each frame"
        assert is_served(port)


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123  one number of a pseudo file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
