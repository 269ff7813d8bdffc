"""The HTTP side of the small services that tests start as processes: an answer is a status and JSON."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any


class JsonHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.serve("GET", {})

    def do_POST(self) -> None:
        self.serve("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def serve(self, method: str, body: dict[str, Any]) -> None:
        """Answers a request: a subclass's own."""
        raise NotImplementedError

    def answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        return
