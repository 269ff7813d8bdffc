"""A coordinator as the stack around this service has it, written from its behaviour; it uses nothing of ours.

It has no expiry and no renewal, a release ends any lease, and after a refusal no resident is resumed.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import redis

from tests.json_handler import JsonHandler

if TYPE_CHECKING:
    Wire = redis.Redis[bytes]
else:  # not subscriptable at run time
    Wire = redis.Redis

Json = dict[str, Any]
Answer = tuple[int, Json]


class NeighbourCoordinator:
    """``generation``: "v1" or "v2", which pauses the residents on its own set of channels.

    Switches: ``token_status`` answers every call but /health as a wrong token is; ``refusal_status`` of a v2 refusal;
    ``flush_secs`` after a pause in which replies are lost; ``remains_pausing`` after a refusal; ``delay_secs`` before
    each answer; ``refuses`` every request, without a pause. A call that finds Redis away is answered with 500, and what
    it changed in the ledger remains.
    """

    def __init__(self, wire: Wire, generation: str = "v2", *, pause_secs: float = 2.0, freed_secs: float = 2.0) -> None:
        self.wire = wire
        self.generation = generation
        self.pause_secs = pause_secs
        self.freed_secs = freed_secs
        self.token_status = 0
        self.refusal_status = 200
        self.flush_secs = 0.0
        self.remains_pausing = False
        self.delay_secs = 0.0
        self.refuses = False
        self.calls: list[str] = []  # method and path, in order
        self.log: Callable[[str], object] = lambda text: None
        self.session = ""
        self.requester = ""
        self.state = "transcription"
        self._lock = threading.Lock()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, or start again at the same address."""
        coordinator = self

        class Handler(JsonHandler):
            def serve(self, method: str, body: Json) -> None:
                coordinator.calls.append(f"{method} {self.path}")
                status, answer = coordinator.answer(method, self.path, body)
                try:
                    self.answer(status, answer)
                except OSError:
                    coordinator.calls.append("caller left")

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving; the ledger remains, as it does in a database."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def n_calls(self, part: str) -> int:
        return sum(part in call for call in list(self.calls))

    def grant_to(self, session: str) -> None:
        """Give the GPU to another program, without asking the residents."""
        self.session, self.requester, self.state = session, "ml-service", "gemma"

    def answer(self, method: str, path: str, body: Json) -> Answer:
        time.sleep(self.delay_secs)
        if self.token_status and path != "/health":
            return self.token_status, {"detail": "invalid service token"}
        routes = self._v2_routes() if self.generation == "v2" else self._v1_routes()
        for (route_method, prefix), handler in routes.items():
            if method == route_method and path.startswith(prefix):
                try:
                    return handler(path, body)
                except (redis.RedisError, OSError) as error:
                    return 500, {"detail": str(error)}
        return 404, {"detail": "Not Found"}

    def _v2_routes(self) -> dict[tuple[str, str], Callable[[str, Json], Answer]]:
        return {
            ("POST", "/gpu/acquire"): self._acquire,
            ("POST", "/gpu/release"): self._release,
            ("GET", "/gpu/state"): self._gpu_state,
        }

    def _v1_routes(self) -> dict[tuple[str, str], Callable[[str, Json], Answer]]:
        return {
            ("POST", "/gemma/request"): self._request_old,
            ("POST", "/gemma/release/"): self._release_old,
            ("GET", "/status"): self._status_old,
        }

    def _acquire(self, path: str, body: Json) -> Answer:
        if not isinstance(body["priority"], int):
            return 422, {"detail": "priority"}
        error = self._take(body["session_id"], body["requester"])
        fields = {"success": error is None, "session_id": body["session_id"], "error": error, "wait_time_ms": 1.0}
        return (200 if error is None else self.refusal_status), fields | {"acquired_at": None if error else _now()}

    def _release(self, path: str, body: Json) -> Answer:
        self._end()
        return 200, {"success": True, "session_id": body["session_id"], "released_at": _now()}

    def _gpu_state(self, path: str, body: Json) -> Answer:
        fields = {"owner": "gemma" if self.session else "transcription", "session_id": self.session or None}
        return 200, fields | {"requester": self.requester or None, "state": self.state, "redis_connected": True}

    def _request_old(self, path: str, body: Json) -> Answer:
        error = self._take(body["task_id"], "gemma-service")
        if error is not None:
            return 500, {"detail": error}
        return 200, {"task_id": body["task_id"], "status": "gpu_acquired", "message": "GPU acquired"}

    def _release_old(self, path: str, body: Json) -> Answer:
        self._end()
        return 200, {"status": "released", "task_id": path.rpartition("/")[2]}

    def _status_old(self, path: str, body: Json) -> Answer:
        lock = {"state": self.state, "current_owner": self.requester or None, "current_task": self.session or None}
        return 200, {"lock_status": lock | {"timestamp": _now()}, "gpu_status": {}, "task_stats": {}}

    def _take(self, session: str, requester: str) -> str | None:
        with self._lock:
            if self.refuses:
                return "no GPU today"
            if self.state != "transcription":
                return f"GPU busy: {self.state}"
            self.session, self.requester, self.state = session, requester, "pausing"
        try:
            self._publish_state()
            with self.wire.pubsub(ignore_subscribe_messages=True) as replies:
                error = self._pause(session, replies)
        except redis.RedisError as fault:
            error = str(fault)
        with self._lock:
            if self.session != session:
                return "released while it was pausing"
            if error is None:
                self.state = "gemma"
            else:  # nobody is resumed
                self.session = self.requester = ""
                self.state = "pausing" if self.remains_pausing else "transcription"
        self._publish_state()
        return error

    def _pause(self, session: str, replies: "redis.client.PubSub") -> str | None:
        channels = ["transcription_paused", "vram_freed", "gpu:ack:transcription"]
        replies.subscribe(*channels)
        while replies.get_message(timeout=0.05) is not None:
            continue
        if self.generation == "v1":
            self.wire.publish("transcription_pause", _encoded(reason="gemma", task_id=session))
        else:
            self.wire.publish("gpu:command", _encoded(command="pause", session_id=session, requester=self.requester))
        time.sleep(self.flush_secs)
        while self.flush_secs and replies.get_message(timeout=0.0) is not None:
            continue
        is_acknowledged = False
        began = time.monotonic()
        while time.monotonic() - began < (self.freed_secs if is_acknowledged else self.pause_secs):
            raw = replies.get_message(timeout=0.02)
            if raw is None or raw["type"] != "message":
                continue
            message = json.loads(raw["data"])
            channel = raw["channel"].decode()
            if channel == "gpu:ack:transcription" and (message["ack_type"], message["session_id"]) != (
                "paused",
                session,
            ):
                continue
            is_acknowledged = is_acknowledged or channel != "vram_freed"
            offloading = (message.get("metadata") or message).get("offloading")
            if channel == "vram_freed" or (channel == "gpu:ack:transcription" and not offloading):
                return None
        return "transcription did not free the GPU" if is_acknowledged else "no pause acknowledgement"

    def _end(self) -> None:
        with self._lock:
            session, self.session, self.requester, self.state = self.session, "", "", "transcription"
        self._publish_state()
        if self.generation == "v1":
            self.wire.publish("transcription_resume", _encoded(task_id=session))
        else:
            self.wire.publish("gpu:command", _encoded(command="resume", session_id=session))

    def _publish_state(self) -> None:
        self.log(f"coordinator: {self.state} {self.session}")
        for name, value in (("gpu_state", self.state), ("gpu_owner", "gemma" if self.session else "transcription")):
            self.wire.set(name, value)
            self.wire.publish(name, value)


def _encoded(**message: object) -> str:
    return json.dumps({**message, "timestamp": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat()
