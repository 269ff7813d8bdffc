"""A server that speaks Ollama's API, as far as models are loaded and unloaded with it; it computes nothing.

Written from its behaviour: an unload is answered at once, waits for the requests that are computed, and is named by
/api/ps until it is done; a request loads its model, for /api/embed also one with an empty input.

    python -m tests.neighbours.ollama --port 11434 --model llama3:8b
"""

import argparse
import contextlib
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any

from tests.json_handler import JsonHandler

Json = dict[str, Any]
GIGABYTE = 10**9


@dataclass
class FakeModel:
    """A model that is installed; ``vram`` is the memory it takes of the GPU, ``computing`` its running requests."""

    name: str
    vram: int = 5 * GIGABYTE
    for_embeddings: bool = False
    is_loaded: bool = False
    is_expiring: bool = False
    computing: int = 0


class FakeOllama:
    """Switches: ``status`` answers every call; ``hang_secs`` before each answer; ``keeps_models`` ignores unloads;
    ``body`` is sent in place of /api/ps' own."""

    def __init__(self, *models: FakeModel, port: int = 0, load_secs: float = 0.0, unload_secs: float = 0.1) -> None:
        self.models = {model.name: model for model in models}
        self.load_secs = load_secs
        self.unload_secs = unload_secs
        self.status = 0
        self.hang_secs = 0.0
        self.keeps_models = False
        self.body: object = None
        self.calls: list[str] = []
        self._changing = threading.Condition()
        self._port = port
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def is_on_gpu(self) -> bool:
        return any(model.is_loaded and model.vram for model in self.models.values())

    def start(self) -> None:
        """Start, or start again at the same address."""
        ollama = self

        class Handler(JsonHandler):
            def serve(self, method: str, body: Json) -> None:
                ollama.calls.append(f"{method} {self.path}")
                time.sleep(ollama.hang_secs)
                status, answer = ollama.answer(self.path, body)
                with contextlib.suppress(OSError):
                    self.answer(status, answer)

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End as a process does: its memory is free."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for model in self.models.values():
            model.is_loaded = False

    def answer(self, path: str, body: Json) -> tuple[int, Any]:
        if self.status:
            return self.status, {"error": "out of order"}
        if path == "/api/ps":
            return 200, self.body if self.body is not None else {"models": self._loaded()}
        if path not in ("/api/generate", "/api/embed"):
            return 404, {"error": "not found"}
        model = self.models.get(body["model"])
        if model is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        if path == "/api/generate" and model.for_embeddings:
            return 400, {"error": f'"{model.name}" does not support generate'}
        is_empty = not body.get("prompt") and not body.get("input")
        if is_empty and body.get("keep_alive") == 0 and (path == "/api/generate" or model.is_loaded):
            threading.Thread(target=self._unload, args=(model,), daemon=True).start()
            return 200, {"model": model.name, "response": "", "done": True, "done_reason": "unload"}
        self.compute(model, 0.0 if is_empty else 0.1)
        return 200, {"model": model.name, "response": "Certainly.", "done": True, "done_reason": "stop"}

    def compute(self, model: FakeModel, secs: float) -> None:
        """Serve a request, which loads the model and takes so long."""
        with self._changing:
            self._changing.wait_for(lambda: not model.is_expiring)
            if not model.is_loaded:
                time.sleep(self.load_secs)
                model.is_loaded = True
            model.computing += 1
        time.sleep(secs)
        with self._changing:
            model.computing -= 1
            self._changing.notify_all()

    def _unload(self, model: FakeModel) -> None:
        with self._changing:
            if self.keeps_models or model.is_expiring or not model.is_loaded:
                return
            model.is_expiring = True  # requests from now on load it again afterwards
            self._changing.wait_for(lambda: model.computing == 0)
        time.sleep(self.unload_secs)
        with self._changing:
            model.is_loaded = model.is_expiring = False
            self._changing.notify_all()

    def _loaded(self) -> list[Json]:
        until = datetime.now(UTC).isoformat()
        return [
            {"name": model.name, "model": model.name, "size": model.vram, "size_vram": model.vram, "expires_at": until}
            for model in self.models.values()
            if model.is_loaded
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for Ollama that loads nothing.")
    parser.add_argument("--port", type=int, default=11434)
    parser.add_argument("--model", default="llama3:8b")
    parser.add_argument("--load-secs", type=float, default=1.0)
    parser.add_argument("--unload-secs", type=float, default=0.5)
    options = parser.parse_args()
    FakeOllama(
        FakeModel(options.model), port=options.port, load_secs=options.load_secs, unload_secs=options.unload_secs
    )
    threading.Event().wait()


if __name__ == "__main__":
    main()
