"""Bytes over a TCP connection, and the HTTP response that comes back."""

import json
import socket
from dataclasses import dataclass
from typing import Any

PATIENCE_SECS = 20.0


@dataclass(frozen=True)
class RawResponse:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.content)
        return body

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.json["error"]["code"]


def exchange(port: int, data: bytes, *, shut: bool = False, patience_secs: float = PATIENCE_SECS) -> bytes:
    """Return all that comes until the server closes. ``shut``: end the sending side first, as ``nc -N`` does."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience_secs) as client:
        client.sendall(data)
        if shut:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65_536), b""))


def response_of(raw: bytes) -> RawResponse:
    """Parse a response whose body ends with the connection."""
    head, _, content = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        content = _joined(content)
    return RawResponse(int(first.split(" ")[1]), headers, content)


def _joined(chunks: bytes) -> bytes:
    joined = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        joined, chunks = joined + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return joined


def request(method: str, target: bytes | str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request that asks the server to close the connection after its response."""
    target = target.encode() if isinstance(target, str) else target
    lines = ["Host: localhost", "Connection: close", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method.encode(), target, "\r\n".join(lines).encode(), body)
