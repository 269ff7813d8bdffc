"""A Valkey that a test kills, freezes, wipes, fills and starts again."""

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from gemma_project.supervisor.tether import tethered
from tests.live_stack import wait_until


class Broker:
    """The server that `serve` would start, with the same options and its append-only file."""

    def __init__(self, *, port: int | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gemma-broker-"))
        self.socket = self.folder / "valkey.sock"
        self._data = self.folder / "data"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return socket_url(self.socket)

    def start(self) -> None:
        valkey.prepare_directories(self.socket, self._data)
        command = valkey.command(self.socket, self._data)
        if self._port is not None:  # for a proxy in between
            command += ["--port", str(self._port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(tethered(command), stdout=subprocess.DEVNULL)
        try:
            wait_until(self._has_begun, timeout_secs=30, what="the broker answers")
        except AssertionError as error:
            error.add_note((self._data / valkey.LOG_NAME).read_text()[-2000:])
            raise

    def _has_begun(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the broker ended while it started"
        return valkey.answers(self.socket)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def forget(self) -> None:
        """Lose everything, as a disk does; the server must not be running."""
        shutil.rmtree(self._data)

    def client(self) -> "redis.Redis[str]":
        return redis.Redis.from_url(self.url, decode_responses=True)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
