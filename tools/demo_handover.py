"""Another program and a chat share one GPU, side by side in the terminal: its holder, and the progress of both.

    make demo-handover          the whole service beside examples/gpu_tenant, on a simulated GPU, for about a minute

The GPU is simulated by a second process on the CPU. Everything else is real: the lease, the moves of a
running answer in the middle of its sentence, the other program's memory given up and taken again.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gemma_project.broker_url import socket_url, valkey_socket

PROJECT = Path(__file__).resolve().parent.parent
FRAMES_PER_SEC = 8
WIDTH = 46
CLEAR = "\x1b[H\x1b[2J"
RATE_SECS = 2.0  # tokens per second are those of the last
# The placement's states in words for the audience.
NOW = {
    "cpu": "the chat's model rests in memory, and computes on the CPU",
    "waiting": "the chat has asked for the GPU; meanwhile it answers on the CPU",
    "loading": "the GPU is the chat's: its model is loaded there while the answer goes on on the CPU",
    "moving": "the running answer moves to the GPU",
    "gpu": "the chat computes on the GPU",
    "yielding": "the running answer moves back to the CPU",
    "leaving": "the chat's process on the GPU ends, then the other program may have it",
}
QUESTIONS = (
    "Write a long story about a lighthouse keeper and a storm.",
    "And what did the keeper do the next morning?",
)


class Tenant:
    """The other program's last words."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.line = "starts"
        self.lines: list[str] = []
        self.has_begun = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.line = line.strip()
            self.has_begun.set()
            if not self.line.startswith("working"):
                self.lines.append(self.line)


class Chat:
    """A streaming answer."""

    def __init__(self, url: str, question: str, conversation_id: str | None) -> None:
        self.question = question
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.state = "asked"
        self.end: dict[str, Any] = {}
        self._body: dict[str, Any] = {"message": question, "max_tokens": 400, "ignore_eos": True}
        if conversation_id:
            self._body["conversation_id"] = conversation_id
        else:
            self._body = {"messages": [{"role": "user", "content": question}], **self._body}
            del self._body["message"]
        self._url = url
        self.is_over = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            with httpx.stream("POST", f"{self._url}/chat/stream", json=self._body, timeout=None) as response:  # noqa: S113  an answer takes its time
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        self._take(json.loads(line[6:]))
        finally:
            self.is_over.set()

    def _take(self, event: dict[str, Any]) -> None:
        if event["token"]:
            self.pieces.append(event["token"])
            self.times.append(time.monotonic())
            self.state = "answering"
        if event.get("status"):
            status = event["status"]
            self.state = status["state"] + (f" ({status['reason']})" if status.get("reason") else "")
        if event["done"]:
            self.end, self.state = event, "complete"

    @property
    def rate(self) -> float:
        since = time.monotonic() - RATE_SECS
        return sum(at >= since for at in self.times) / RATE_SECS


def picture(health: dict[str, Any], lease: dict[str, Any], tenant: Tenant, chat: Chat, note: str) -> str:
    """Draw a frame."""
    gpu = health.get("gpu") or {}
    has_it = {True: "\x1b[42m  HAS THE GPU  \x1b[0m", False: "without the GPU"}
    left = [
        "TRANSCRIPTION (another program)",
        has_it[lease.get("state") == "transcription"],
        "",
        *textwrap.wrap(tenant.line, WIDTH),
        "",
        *tenant.lines[-4:],
    ]
    text = "".join(chat.pieces)
    right = [
        f"CHAT: {chat.question}"[:WIDTH],
        has_it[lease.get("state") == "gemma"],
        f"the client was told: {chat.state}"[:WIDTH],
        f"{len(chat.pieces)} pieces of text, {chat.rate:.0f} a second",
        "",
        *textwrap.wrap(text[-420:], WIDTH)[-8:],
    ]
    rows = max(len(left), len(right))
    body = "\n".join(f" {_fit(left, row)} | {_fit(right, row)}" for row in range(rows))
    head = f"{note}\nNow: {NOW.get(gpu.get('state', ''), 'the service starts')}. (SIMULATED card)"
    return f"{head}\n{'-' * (2 * WIDTH + 5)}\n{body}\n"


def _fit(lines: list[str], row: int) -> str:
    line = lines[row] if row < len(lines) else ""
    shown = line if line.startswith("\x1b") else line[:WIDTH]
    n_visible = 16 if line.startswith("\x1b") else len(shown)
    return shown + " " * (WIDTH - n_visible)


class Show:
    """Draw until the condition holds."""

    def __init__(self, url: str, tenant: Tenant, *, is_plain: bool) -> None:
        self._client = httpx.Client(base_url=url, timeout=5.0)
        self._tenant = tenant
        self._is_plain = is_plain
        self._drawn_at = 0.0

    def until(self, chat: Chat, note: str, n_pieces: int | None = None) -> None:
        """The chat is over, or has so many pieces."""
        while not chat.is_over.is_set() and (n_pieces is None or len(chat.pieces) < n_pieces):
            self._draw(chat, note)
            time.sleep(1 / FRAMES_PER_SEC)
        self._draw(chat, note)

    def rest(self, chat: Chat, note: str, secs: float) -> None:
        until = time.monotonic() + secs
        while time.monotonic() < until:
            self._draw(chat, note)
            time.sleep(1 / FRAMES_PER_SEC)

    def _draw(self, chat: Chat, note: str) -> None:
        if self._is_plain and time.monotonic() - self._drawn_at < 2.0:
            return
        self._drawn_at = time.monotonic()
        health, lease = self._client.get("/health").json(), self._client.get("/gpu/state").json()
        frame = picture(health, lease, self._tenant, chat, note)
        print(frame if self._is_plain else CLEAR + frame, flush=True)


def play(url: str, tenant: Tenant, *, is_plain: bool) -> None:
    show = Show(url, tenant, is_plain=is_plain)
    first = Chat(url, QUESTIONS[0], None)
    show.until(first, "1 of 4: a question. The answer begins at once, on the CPU, and goes on on the GPU.")
    runs = ", ".join(f"{run['tokens']} tokens on the {run['device']}" for run in first.end.get("devices", ()))
    show.rest(first, "2 of 4: nobody asks. After a moment the GPU goes back to the other program.", 5.0)
    second = Chat(url, QUESTIONS[1], first.end.get("conversation_id"))
    show.until(second, "3 of 4: the next question; the GPU is asked for again.", n_pieces=150)
    httpx.post(f"{url}/move-to-cpu", timeout=30.0).raise_for_status()
    show.until(second, "4 of 4: the GPU has to go back in mid-sentence; the answer goes on on the CPU.")
    more = ", ".join(f"{run['tokens']} tokens on the {run['device']}" for run in second.end.get("devices", ()))
    cached = second.end.get("usage", {}).get("cached_tokens")
    show.rest(second, "over", 2.0)
    print(f"First answer: {runs}.\nSecond answer: {more}; {cached} tokens of its prompt were not computed again.")
    print(f"The other program: {tenant.line}.\nThe card was simulated: a second process on the CPU.")


@contextmanager
def service(folder: Path, environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """Start `manage.py serve` and wait until it is ready."""
    log = folder / "serve.log"
    with log.open("wb") as output:
        command = [sys.executable, str(PROJECT / "manage.py"), "serve"]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=PROJECT)
        try:
            while "serve: ready" not in log.read_text(errors="replace"):
                if process.poll() is not None:
                    raise SystemExit(f"the service did not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="one picture every two seconds, below each other")
    parser.add_argument("--fake", action="store_true", help="the fake model, which says what it is told")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gemma-demo-"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "GEMMA_DATA_DIR": str(folder),
        "GEMMA_PORT": str(port),
        "GEMMA_GPU": "simulated",
        "GEMMA_GPU_LOAD_DELAY_MS": "1500",
        "GPU_LINGER_SECS": "3",
        "GPU_MIN_HOLD_SECS": "2",
        "GPU_COORDINATOR_URL": "",
    }
    if arguments.fake:
        environment["GEMMA_BACKEND"] = "fake"
    print("Starting the service ...", flush=True)
    try:
        with service(folder, environment):
            address = socket_url(valkey_socket(folder))
            command = [sys.executable, "-m", "examples.gpu_tenant", "--redis-url", address]
            tenants = environment | {"GPU_COORDINATOR_URL": url, "PYTHONUNBUFFERED": "1"}
            process = subprocess.Popen(command, env=tenants, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
            try:
                tenant = Tenant(process)
                tenant.has_begun.wait(30)  # else the first answer would find the GPU unused
                play(url, tenant, is_plain=arguments.plain or not sys.stdout.isatty())
            finally:
                process.terminate()
                process.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
