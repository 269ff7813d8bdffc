"""Ollama's models and a chat share one GPU through the bridge: a server that speaks Ollama's API, and the figures.

    make demo-bridge        the whole service, the bridge and the server on a simulated GPU, for about a minute

The GPU is simulated, and the server loads nothing; the lease, the bridge and its calls are real. The table's last
column is the time in which both had memory of the GPU, looked at every 20 ms.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.neighbours.ollama import FakeModel, FakeOllama
from tools.demo_handover import free_port, service

PROJECT = Path(__file__).resolve().parent.parent
LOOK_SECS = 0.02
MODEL = "llama3:8b"
PATIENCE_SECS = 60.0
QUESTION = "Tell a long story about a lighthouse keeper and a storm."
FAKE_QUESTION = "[[delay: 30]] [[count: 200]]"


@dataclass
class Round:
    """What one chat cost: times in seconds, ``on_gpu`` its tokens there."""

    left_secs: float
    granted_secs: float
    on_gpu: int
    tokens: int
    back_secs: float
    both_secs: float


class Watch:
    """Looks from outside who has memory of the GPU."""

    def __init__(self, ollama: FakeOllama, serve: int) -> None:
        self._ollama = ollama
        self._serve = psutil.Process(serve)
        self._is_over = threading.Event()
        self.both_secs = 0.0
        self.chat_since: float | None = None
        self.ollama_left: float | None = None
        threading.Thread(target=self._look, daemon=True).start()

    def stop(self) -> None:
        self._is_over.set()

    def begin(self) -> None:
        self.both_secs, self.chat_since, self.ollama_left = 0.0, None, None

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECS):
            is_chat, is_ollama, now = self._has_runner(), self._ollama.is_on_gpu(), time.monotonic()
            self.both_secs += LOOK_SECS if is_chat and is_ollama else 0.0
            if is_chat and self.chat_since is None:
                self.chat_since = now
            if not is_ollama and self.ollama_left is None:
                self.ollama_left = now

    def _has_runner(self) -> bool:
        for process in self._serve.children(recursive=True):
            try:
                if any("gemma-runner gpu" in part for part in process.cmdline()):
                    return True
            except psutil.NoSuchProcess:
                continue
        return False


def play(url: str, ollama: FakeOllama, watch: Watch, n_rounds: int, question: str) -> list[Round]:
    rounds = []
    with httpx.Client(base_url=url, timeout=600) as client:
        for number in range(n_rounds):
            ask_ollama(ollama)
            # In the second round Ollama computes while the chat wants the GPU.
            if number % 2:
                threading.Thread(target=ollama.compute, args=(ollama.models[MODEL], 3.0), daemon=True).start()
                time.sleep(0.2)
            watch.begin()
            began = time.monotonic()
            body = {"message": question, "max_tokens": 200, "ignore_eos": True, "store": False}
            answer = client.post("/chat", json=body).raise_for_status().json()
            n_on_gpu = sum(run["tokens"] for run in answer["devices"] if run["device"] == "gpu")
            ended = time.monotonic()
            wait_for(lambda: client.get("/gpu/state").json()["state"] == "transcription")
            ask_ollama(ollama)
            rounds.append(
                Round(
                    left_secs=(watch.ollama_left or began) - began,
                    granted_secs=(watch.chat_since or began) - began,
                    on_gpu=n_on_gpu,
                    tokens=answer["tokens_generated"],
                    back_secs=time.monotonic() - ended,
                    both_secs=watch.both_secs,
                )
            )
            print(f"round {number + 1}: {rounds[-1]}", flush=True)
    return rounds


def ask_ollama(ollama: FakeOllama) -> None:
    """Ask it something over HTTP, which loads its model where that was unloaded."""
    body = {"model": MODEL, "prompt": "Why is the sky blue?", "stream": False}
    httpx.post(f"{ollama.url}/api/generate", json=body, timeout=30.0).raise_for_status()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("it did not happen in time")
        time.sleep(0.05)


@contextmanager
def bridge(ollama: FakeOllama, folder: Path, environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """The bridge as it is started by hand; it finds the service by itself."""
    command = [sys.executable, "-m", "inference.gpu.bridge", "ollama", "--url", ollama.url]
    with (folder / "bridge.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def report(rounds: list[Round], log: str) -> None:
    print("\nround  model off  chat on GPU  tokens there  Ollama again  both at once")
    for number, one in enumerate(rounds, start=1):
        print(
            f"{number:5}  {one.left_secs:7.2f} s  {one.granted_secs:9.2f} s  {one.on_gpu:5} of {one.tokens:3}"
            f"  {one.back_secs:10.2f} s  {one.both_secs:10.2f} s"
        )
    print("\nThe bridge's log:")
    print(log)
    print("Simulated: the GPU (a second process on the CPU) and Ollama (a server that loads nothing).")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--fake", action="store_true", help="the fake model instead of the 270M one")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gemma-demo-"))
    port = free_port()
    environment = os.environ | {
        "GEMMA_DATA_DIR": str(folder),
        "GEMMA_PORT": str(port),
        "GEMMA_GPU": "simulated",
        "GPU_ADDRESS_FILE": str(folder / "gpu" / "addresses.json"),
        "GPU_COORDINATOR_URL": "",
        "GPU_LINGER_SECS": "1",
        "JSON_PATIENCE_SECS": "600",
    }
    if options.fake:
        environment["GEMMA_BACKEND"] = "fake"
    ollama = FakeOllama(FakeModel(MODEL), load_secs=0.5, unload_secs=0.5)
    print("Starting the service ...", flush=True)
    try:
        with service(folder, environment) as serve, bridge(ollama, folder, environment) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: "tenants: 1" in httpx.get(f"{url}/health").text)
            watch = Watch(ollama, serve.pid)
            rounds = play(url, ollama, watch, options.rounds, FAKE_QUESTION if options.fake else QUESTION)
            watch.stop()
            is_alive = process.poll() is None
        report(rounds, (folder / "bridge.log").read_text(encoding="utf-8"))
        is_shared = all(one.both_secs == 0.0 and one.on_gpu > 0 for one in rounds)
        return 0 if is_shared and is_alive else 1
    finally:
        ollama.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
