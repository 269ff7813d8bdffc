"""Parent's end of a runner process: start, frames, and exactly one notification of its exit.

Knows frames and processes; the meaning of a frame for a generation belongs to the caller.
"""

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from inference.engine.config import EngineConfig
from inference.engine.errors import RunnerStartError
from inference.engine.process.deadline import STATUS as DEADLINE_STATUS
from inference.engine.process.deadline import has_passed
from inference.engine.protocol.frames import (
    Fatal,
    Frame,
    FromRunner,
    Ready,
    Start,
    Stop,
    decode_from_runner,
    encode,
)

log = logging.getLogger(__name__)

PROJECT_ROOT = Path(__file__).resolve().parents[3]
# For a large model on a slow disk; a runner that dies is noticed at once.
START_TIMEOUT_SECS = 900.0
KILL_WAIT_SECS = 10.0
HAS_LEFT = "runner_left"  # code of a start that ended because the deadline had passed
EXIT_SECS = 0.5  # of the stop timeout, not available for saving


@dataclass(frozen=True)
class RunnerExit:
    """Exit of a runner that had been ready."""

    pid: int
    returncode: int  # negative: the signal
    requested: bool  # by ``stop`` or ``kill``
    is_deadline_over: bool = False  # it had one, which has passed

    @property
    def reason(self) -> str:
        return describe_returncode(DEADLINE_STATUS if self.has_left else self.returncode)

    @property
    def has_left(self) -> bool:
        """Return whether it ended because its deadline had passed: no fault of a sequence or of the device."""
        is_killed = self.returncode == -signal.SIGKILL and self.is_deadline_over and not self.requested
        return is_killed or self.returncode == DEADLINE_STATUS


def describe_returncode(returncode: int) -> str:
    """Return one line for an operator."""
    if returncode == DEADLINE_STATUS:
        return "its deadline was not extended in time"
    if returncode >= 0:
        return f"exit status {returncode}"
    name = signal.Signals(-returncode).name if -returncode in list(signal.Signals) else f"signal {-returncode}"
    if name == "SIGILL":
        return f"{name}: llama-cpp-python was built for another CPU; rebuild it"
    return f"killed by {name}"


class RunnerProcess:
    """A runner process; started once.

    ``on_frame`` and ``on_exit`` are called from one reader thread. The kernel kills the runner when the thread that
    called ``start`` ends: call it from one that runs as long as the process.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        title: str = "gemma-runner cpu",
        on_frame: Callable[[FromRunner], None],
        on_exit: Callable[[RunnerExit], None],
        keep_fds: tuple[int, ...] = (),
        deadline: Path | None = None,
    ) -> None:
        """``keep_fds`` stay open in the process until it ends. ``deadline``: file of ``deadline.Deadline``."""
        # The runner's working directory is the project's folder, where a relative path could name another file.
        self._config = msgspec.structs.replace(
            config,
            model_path=config.model_path.absolute(),
            cache_dir=config.cache_dir.absolute() if config.cache_dir else None,
        )
        self._title = title
        self._keep_fds = keep_fds
        self._deadline = "" if deadline is None else str(deadline.absolute())
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._sending = threading.Lock()
        self._first: queue.SimpleQueue[FromRunner | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"{title} reader", daemon=True)
        self._requested = False

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_secs: float = START_TIMEOUT_SECS) -> Ready:
        """Start the process and wait until it has produced a token; raises ``RunnerStartError``.

        After an error there is no process and ``on_exit`` is not called.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            module = "inference.engine.process.runner"
            command = [sys.executable, "-X", "faulthandler", "-m", module, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(), *self._keep_fds), cwd=PROJECT_ROOT)
        self._spawned()
        if self._requested:  # killed before there was a process
            self._process.kill()
        self._connection = Connection(ours.detach())
        self.send(Start(config=self._config, title=self._title, parent_pid=os.getpid(), deadline=self._deadline))
        self._reader.start()
        try:
            first = self._first.get(timeout=timeout_secs)
        except queue.Empty:
            first = Fatal("timeout", f"the runner was not ready after {timeout_secs:.0f} s")
        if isinstance(first, Ready):
            return first
        if isinstance(first, Fatal):
            self._end_process(0.0)
            raise RunnerStartError(first.code, first.message)
        self._end_process(KILL_WAIT_SECS)
        returncode = self._process.returncode
        code = HAS_LEFT if returncode == DEADLINE_STATUS else "runner_died"
        raise RunnerStartError(code, f"the runner ended before it was ready: {describe_returncode(returncode)}")

    def send(self, frame: Frame) -> None:
        """Send a frame; for a runner that is gone it is dropped, since ``on_exit`` reports that."""
        if self._connection is None:
            raise RuntimeError("the runner was not started")
        try:
            with self._sending:
                self._connection.send_bytes(encode(frame))
        except OSError:
            log.debug("frame dropped, runner is gone runner=%s frame=%s", self._title, type(frame).__name__)

    def stop(self, timeout_secs: float) -> None:
        """Stop the runner, by SIGKILL after ``timeout_secs``; returns after ``on_exit``."""
        self._requested = True
        if self.alive:
            self.send(Stop(save_secs=max(0.0, timeout_secs - EXIT_SECS)))
        self._end_process(timeout_secs)
        if self._reader.is_alive() and threading.current_thread() is not self._reader:
            self._reader.join()

    def kill(self) -> None:
        """Send SIGKILL, now or as soon as there is a process; ``on_exit`` follows if the runner was ready."""
        self._requested = True
        if self._process is not None:
            self._process.kill()

    def _spawned(self) -> None:
        """For subclasses: there is a process, which has ``keep_fds``."""

    def _end_process(self, timeout_secs: float) -> None:
        process = self._started()
        try:
            process.wait(timeout_secs)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(KILL_WAIT_SECS)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the runner was not started")
        return self._process

    # ---- reader thread ----

    def _read(self) -> None:
        first = self._receive()
        self._first.put(first)
        if not isinstance(first, Ready):
            return
        while (frame := self._receive()) is not None:
            try:
                self._on_frame(frame)
            except Exception:
                # An unhandled frame is a lost token: kill the runner, so that its sequences are replayed whole.
                log.exception("frame not handled, killing the runner runner=%s", self._title)
                self._started().kill()
        process = self._started()
        # The pair is closed, so the process has ended or is about to; one that hangs at its end is killed.
        self._end_process(KILL_WAIT_SECS)
        with self._sending:
            if self._connection is not None:
                self._connection.close()
        is_over = bool(self._deadline) and has_passed(Path(self._deadline))
        self._on_exit(RunnerExit(process.pid, process.returncode, self._requested, is_over))

    def _receive(self) -> FromRunner | None:
        """Return the next frame; ``None`` when the runner closed its end."""
        if self._connection is None:
            return None
        try:
            return decode_from_runner(self._connection.recv_bytes())
        except (EOFError, OSError):
            return None
