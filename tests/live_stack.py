"""A real `manage.py serve` on a free port in a directory of its own, and what became of its processes."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from gemma_project.supervisor.tether import tethered
from tests.private_environment import clean_environment

PROJECT = Path(__file__).resolve().parent.parent
READY_SECS = {"fake": 60.0, "llama": 180.0}
STOP_SECS = 15.0
POLL_SECS = 0.05


def free_port() -> int:
    """Below those that connections take theirs from, so that a server that was killed finds it free when it is back."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_until(happened: Callable[[], bool], *, timeout_secs: float, what: str) -> None:
    """Poll until it happened; fails with ``what`` after the time."""
    deadline = time.monotonic() + timeout_secs
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_secs:g} s: {what}")
        time.sleep(POLL_SECS)


class LiveStack:
    """The whole service as processes. ``start`` may be called again after it ended: the data stays."""

    def __init__(self, *, backend: str, environment: dict[str, str]) -> None:
        self.backend = backend
        # Short, because Valkey's socket lies in it.
        self.data_dir = Path(tempfile.mkdtemp(prefix="gemma-live-"))
        self.port = free_port()
        self.environment = {
            **clean_environment(),
            "GEMMA_DATA_DIR": str(self.data_dir),
            "GEMMA_PORT": str(self.port),
            "GEMMA_BACKEND": backend,
            **({"GEMMA_DRAFT_MAX": "0"} if backend == "fake" else {}),  # tests slow its steps down, one token each
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._output = self.data_dir / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """What the service has printed so far, all starts together."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def start(self, *, wait: bool = True) -> None:
        n_before = self.output.count("serve: ready") if self._output.exists() else 0
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                # A test run that is killed takes its services along.
                tethered([sys.executable, str(PROJECT / "manage.py"), "serve"]),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.data_dir,
                start_new_session=True,
            )
        if wait:
            wait_until(
                lambda: self.output.count("serve: ready") > n_before or self.exit_status() is not None,
                timeout_secs=READY_SECS[self.backend],
                what=f"the service is ready\n{self.output}",
            )
            assert self.exit_status() is None, self.output

    def exit_status(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def wait(self, timeout_secs: float = STOP_SECS) -> int:
        """The exit status of the supervisor, once it ended."""
        assert self._process is not None
        return self._process.wait(timeout_secs)

    def processes(self) -> list[psutil.Process]:
        """All processes below the supervisor, at this moment."""
        return psutil.Process(self.pid).children(recursive=True)

    def titles(self) -> dict[int, str]:
        """What ``ps`` shows for each process below the supervisor, by its id."""
        found = {}
        for process in self.processes():
            # One that has just died has no title any more.
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process.pid] = " ".join(process.cmdline()).strip()
        return found

    def process(self, title: str) -> psutil.Process:
        """The one whose title begins with the words."""
        found = [pid for pid, words in self.titles().items() if words.startswith(title)]
        assert len(found) == 1, f"{title}: {self.titles()}"
        return psutil.Process(found[0])

    def run(self, *command: str, timeout_secs: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A management command with this stack's environment."""
        return subprocess.run(
            [sys.executable, str(PROJECT / "manage.py"), *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_secs,
            check=False,
        )

    def stop(self) -> int:
        """End the service as an operator does; returns its exit status."""
        if self.exit_status() is None:
            os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def clean_up(self) -> None:
        """End whatever is left, without questions, and remove the data."""
        if self._process is not None and self._process.poll() is None:
            left = self.processes()
            self._process.kill()
            self._process.wait()
            psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.data_dir, ignore_errors=True)


@contextlib.contextmanager
def running_stack(backend: str = "fake", **environment: str) -> Iterator[LiveStack]:
    """A service for the time of the block; nothing of it is left afterwards, also when it does not start."""
    stack = LiveStack(backend=backend, environment=environment)
    try:
        stack.start()
        yield stack
    finally:
        stack.clean_up()
