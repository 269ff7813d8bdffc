"""A real HTTP server in a thread that behaves as memory services do, and as they should not."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEGMENT = {
    "id": "seg-7",
    "text": "The deadline moved to Friday.",
    "type": "transcript_segment",
    "score": 0.91,
    "metadata": {
        "speaker": "Sarah",
        "emotion": "worried",
        "start_time": 12.5,
        "created_at": "2026-03-01T14:05:00",
        "segment_id": 7,
    },
}
MEMORY = {
    "id": "mem-1",
    "text": "Budget: approved",
    "type": "memory",
    "score": 0.4,
    "metadata": {"memory_id": "mem-1", "title": "Budget", "created_at": "2026-02-01T10:00:00"},
}
OLD_HIT = {
    "doc_id": "d-3",
    "doc_type": "transcript_segment",
    "text": "We ship on Monday.",
    "speaker": "John",
    "score": 0.7,
    "metadata": {"timestamp": "2026-01-05T08:00:00", "emotion": "calm"},
}


@dataclass
class MemoryService:
    """A RAG service with the answer that the test sets; it records its requests. ``release`` ends its silence."""

    url: str = ""
    status: int = 200
    results: list[Any] | None = field(default_factory=lambda: [SEGMENT, MEMORY])
    body: bytes | None = None  # instead of results
    knows: tuple[str, ...] = ("/search/semantic",)
    manner: str = "normal"  # normal | hang | drip | drip_headers | cut
    requests: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def answer(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"success": True, "query": "", "count": 0, "results": self.results}).encode()


class _Handler(BaseHTTPRequestHandler):
    service: MemoryService

    def do_POST(self) -> None:
        requests = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.service.requests.append(requests | {"path": self.path})
        self.service.tokens.append(self.headers.get("X-Service-Token"))
        if self.path not in self.service.knows:
            self.send_error(404)
            return
        getattr(self, f"_{self.service.manner}")(self.service.answer())

    def _head(self, length: int) -> bytes:
        status = f"HTTP/1.1 {self.service.status} X\r\nContent-Type: application/json\r\nConnection: close\r\n"
        return f"{status}Content-Length: {length}\r\n".encode()

    def _normal(self, body: bytes) -> None:
        self.wfile.write(self._head(len(body)) + b"\r\n" + body)

    def _cut(self, body: bytes) -> None:
        self.wfile.write(self._head(len(body) + 100) + b"\r\n" + body)

    def _hang(self, body: bytes) -> None:
        self.service.release.wait(30)

    def _drip(self, body: bytes) -> None:
        self.wfile.write(self._head(10_000) + b"\r\n")
        self._drops(b" ")

    def _drip_headers(self, body: bytes) -> None:
        self.wfile.write(self._head(len(body)))
        self._drops(b"X-A: b\r\n")

    def _drops(self, drop: bytes) -> None:
        """Send a byte each 20 ms, so that no single read waits long."""
        try:
            while not self.service.release.wait(0.02):
                self.wfile.write(drop)
                self.wfile.flush()
        except OSError:
            return  # the client has had enough

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        return


@contextmanager
def memory_service() -> Iterator[MemoryService]:
    service = MemoryService()
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        service.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
