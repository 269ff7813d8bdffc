"""A process that speaks the GPU coordinator's protocol as others have it, for tests: `... PORT GENERATION`.

GENERATION is "v2" or "v1" (answers 404 on everything of v2). It wants a service token when JWT_SECRET is set. How it
behaves is set over `POST /test`: `{"refuse": "why", "status": 500, "hang_secs": 3, "holder": ["x"], "grant_secs": 1}`.
"""

import os
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any

from tests.json_handler import JsonHandler

Json = dict[str, Any]
Answer = tuple[int, Json]
lock = threading.Lock()
holder: list[str] = []
requests: list[Json] = []
mood: Json = {}
restarts: list[None] = []
serving = threading.local()  # how many restarts there had been when the request of this thread came


def acquire(session_id: str) -> str | None:
    """None: granted, else why not."""
    time.sleep(mood.get("grant_secs", 0))
    with lock:
        if serving.n_restarts != len(restarts):
            return "it was restarted meanwhile"
        if mood.get("refuse"):
            return str(mood["refuse"])
        if holder and holder != [session_id]:
            return "held by another session"
        holder[:] = [session_id]
        return None


def release(session_id: str) -> bool:
    with lock:
        had = holder == [session_id]
        if had:
            holder.clear()
        return had


def new(method: str, path: str, body: Json) -> Answer:
    now = datetime.now(UTC).isoformat()
    if (method, path) == ("POST", "/gpu/acquire"):
        if not isinstance(body["priority"], int) or not 1000 <= body["timeout_ms"] <= 120_000:
            return 422, {"detail": "unprocessable"}
        error = acquire(body["session_id"])
        answer = {"success": error is None, "session_id": body["session_id"], "acquired_at": None if error else now}
        return 200, answer | {"error": error, "wait_time_ms": 1.0}
    if (method, path) == ("POST", "/gpu/release"):
        success = release(body["session_id"])
        return 200, {"success": success, "session_id": body["session_id"], "released_at": now, "session_duration_ms": 1}
    if (method, path) == ("GET", "/gpu/state"):
        session = holder[0] if holder else None
        answer = {"owner": "gemma" if session else "transcription", "session_id": session, "requester": None}
        state = "gemma" if session else "transcription"
        return 200, answer | {"acquired_at": None, "state": state, "redis_connected": True, "postgres_connected": True}
    return 404, {"detail": "Not Found"}


def old(method: str, path: str, body: Json) -> Answer:
    if (method, path) == ("POST", "/gemma/request"):
        if missing := {"task_id", "messages", "max_tokens", "temperature"} - set(body):
            return 422, {"detail": sorted(missing)}
        error = acquire(body["task_id"])
        if error:
            return 500, {"detail": error}
        return 200, {"task_id": body["task_id"], "status": "gpu_acquired", "message": "GPU acquired"}
    if method == "POST" and path.startswith("/gemma/release/"):
        task_id = path.rpartition("/")[2]
        release(task_id)
        return 200, {"status": "released", "task_id": task_id}
    if (method, path) == ("GET", "/status"):
        state = {"state": "gemma" if holder else "transcription", "current_task": holder[0] if holder else None}
        return 200, {"lock_status": state | {"current_owner": None, "timestamp": 0}, "gpu_status": {}, "task_stats": {}}
    return 404, {"detail": "Not Found"}


GENERATIONS = {"v2": new, "v1": old}


class Handler(JsonHandler):
    generation = "v2"
    protocol_version = "HTTP/1.1"

    def serve(self, method: str, body: Json) -> None:
        if self.path == "/test":
            self.answer(200, self._test(body))
            return
        with lock:
            serving.n_restarts = len(restarts)
            requests.append({"method": method, "path": self.path, "body": body})
        time.sleep(mood.get("hang_secs", 0))
        if "status" in mood:
            self.answer(mood["status"], {"detail": "out of order"})
        elif os.environ.get("JWT_SECRET") and not self.headers.get("X-Service-Token"):
            self.answer(401, {"detail": "no service token"})
        else:
            self.answer(*GENERATIONS[self.generation](method, self.path, body))

    @staticmethod
    def _test(body: Json) -> Json:
        with lock:
            mood.clear()
            mood.update(body)
            if "holder" in body:  # as after a restart: who asked before it is granted nothing
                restarts.append(None)
                holder[:] = body["holder"]
            return {"holder": list(holder), "asked": list(requests)}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hung up while it was kept waiting."""


if __name__ == "__main__":
    Handler.generation = sys.argv[2]
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)  # noqa: T201  the port, when 0 was asked for
    server.serve_forever()
