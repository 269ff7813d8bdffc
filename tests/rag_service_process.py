"""A process that speaks the RAG service's protocol, for tests: `python -m tests.rag_service_process PORT FORM`.

FORM is "new" (answers on /search/semantic) or "old" (knows /search alone). It knows two lines of one meeting, and wants
a service token when JWT_SECRET is set.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LINES = [
    ("Sarah", "Then we cannot make the deadline on Friday.", "worried", "2026-03-02T10:00:11+00:00"),
    ("John", "Moving it to the thirteenth would give us a week.", "calm", "2026-03-02T10:00:17+00:00"),
]


def new_form(asked: dict[str, Any]) -> dict[str, Any]:
    results = [
        {
            "id": f"line-{number}",
            "text": text,
            "type": "transcript_segment",
            "score": 0.9 - number / 10,
            "metadata": {"speaker": speaker, "emotion": emotion, "start_time": 11.5, "created_at": said_at},
        }
        for number, (speaker, text, emotion, said_at) in enumerate(LINES)
    ]
    found = results[: asked["top_k"]]
    return {"success": True, "query": asked["query"], "count": len(found), "results": found}


def old_form(asked: dict[str, Any]) -> dict[str, Any]:
    results = [
        {
            "doc_id": f"line-{number}",
            "doc_type": "transcript_segment",
            "text": text,
            "speaker": speaker,
            "score": 0.9 - number / 10,
            "metadata": {"timestamp": said_at, "emotion": emotion},
        }
        for number, (speaker, text, emotion, said_at) in enumerate(LINES)
    ]
    found = results[: asked["top_k"]]
    return {"results": found, "total_results": len(found), "query_embedding_time": 0.01, "search_time": 0.02}


FORMS = {"new": ("/search/semantic", new_form), "old": ("/search", old_form)}


class Handler(BaseHTTPRequestHandler):
    form = "new"

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, {"status": "healthy"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path, answer = FORMS[self.form]
        if os.environ.get("JWT_SECRET") and not self.headers.get("X-Service-Token"):
            self._answer(401, {"detail": "no service token"})
        elif self.path != path:
            self._answer(404, {"detail": "not found"})
        else:
            self._answer(200, answer(asked))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        return


if __name__ == "__main__":
    Handler.form = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
