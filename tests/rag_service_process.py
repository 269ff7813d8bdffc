"""A process that speaks the RAG service's protocol, for tests: `python -m tests.rag_service_process PORT FORM`.

FORM is "new" (answers on /search/semantic) or "old" (knows /search alone). It knows two lines of one meeting, and wants
a service token when JWT_SECRET is set.
"""

import os
import sys
from http.server import ThreadingHTTPServer
from typing import Any

from tests.json_handler import JsonHandler

LINES = [
    ("Sarah", "Then we cannot make the deadline on Friday.", "worried", "2026-03-02T10:00:11+00:00"),
    ("John", "Moving it to the thirteenth would give us a week.", "calm", "2026-03-02T10:00:17+00:00"),
]


def new_form(request: dict[str, Any]) -> dict[str, Any]:
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
    found = results[: request["top_k"]]
    return {"success": True, "query": request["query"], "count": len(found), "results": found}


def old_form(request: dict[str, Any]) -> dict[str, Any]:
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
    found = results[: request["top_k"]]
    return {"results": found, "total_results": len(found), "query_embedding_time": 0.01, "search_time": 0.02}


FORMS = {"new": ("/search/semantic", new_form), "old": ("/search", old_form)}


class Handler(JsonHandler):
    form = "new"

    def serve(self, method: str, body: dict[str, Any]) -> None:
        path, answer = FORMS[self.form]
        if method == "GET":
            self.answer(200 if self.path == "/health" else 404, {"status": "healthy"})
        elif os.environ.get("JWT_SECRET") and not self.headers.get("X-Service-Token"):
            self.answer(401, {"detail": "no service token"})
        elif self.path != path:
            self.answer(404, {"detail": "not found"})
        else:
            self.answer(200, answer(body))


if __name__ == "__main__":
    Handler.form = sys.argv[2]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
