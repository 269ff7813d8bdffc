"""A reverse proxy that changes requests on their way to a service."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

# Of one connection, or computed anew; the client of the proxy asks for no compression.
_HOP_HEADERS = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "accept-encoding"}


@dataclass(frozen=True, kw_only=True)
class ProxiedRequest:
    method: str
    path: str  # with the query
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rewrite = Callable[[ProxiedRequest], ProxiedRequest]


@contextmanager
def rewriting_proxy(service: str, rewrite: Rewrite) -> Iterator[str]:
    """Run the proxy for the time of the block; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_method(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
            request = rewrite(ProxiedRequest(method=self.command, path=self.path, body=body, headers=headers))
            with client.stream(
                request.method, request.path, content=request.body, headers=dict(request.headers)
            ) as response:
                self.send_response_only(response.status_code)
                for name, value in response.headers.items():
                    if name not in _HOP_HEADERS:
                        self.send_header(name, value)
                # A body ends with its connection, so that a stream needs no length.
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                try:
                    for piece in response.iter_raw():
                        self.wfile.write(piece)
                        self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has left, as some tests do

        def log_message(self, *args: object) -> None:
            """Write nothing: the tests report what went wrong."""

    for method in ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.handle_one_method)
    headers = {"Accept-Encoding": "identity"}
    with (
        httpx.Client(base_url=service, timeout=120, headers=headers) as client,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
