"""A program that commands stop and start: a systemd unit, a container, a script.

A freeze is no stop: SIGSTOP and ``docker pause`` leave the memory of the GPU to the frozen program.
"""

import hashlib
import logging
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from inference.gpu.bridge.neighbour import NeighbourError

log = logging.getLogger(__name__)

POLL_SECS = 0.05
KILL_SECS = 2.0
OUTPUT_CHARS = 300
_FREEZE = re.compile(
    r"\b(docker|podman|nerdctl)\b.*\bpause\b|\bSIGSTOP\b|(-|--signal[= ]|-s )STOP\b|\bsystemctl\b.*\bfreeze\b",
    re.IGNORECASE,
)


class Command:
    """A program with a command to stop and one to start it, and one that succeeds when its memory is free.

    Without ``check`` the end of ``pause`` is taken for that. A program that ``check`` finds stopped already is left as
    it is, and not started afterwards.
    """

    watch_secs = 5.0

    def __init__(
        self, name: str, *, pause: str, resume: str, check: str | None, timeout_secs: float, folder: Path
    ) -> None:
        self.name = name
        self._pause = pause
        self._resume = resume
        self._check = check
        self._timeout_secs = timeout_secs
        # Outlives a bridge that is killed: the next one starts the program again.
        digest = hashlib.sha256(f"{name}\0{pause}\0{resume}".encode()).hexdigest()[:12]
        self._marker = folder / f"bridge-{digest}.paused"
        self._is_stopped = False
        self._interrupted = threading.Event()

    def is_off(self) -> bool:
        return self._is_stopped if self._check is None else self._status(self._check) == 0

    def leave(self) -> None:
        try:
            self._marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._marker.write_text(f"{self._resume}\n", encoding="utf-8")
        except OSError as error:
            raise NeighbourError(f"the state file cannot be written, so it is not paused: {error}") from error
        self._run("pause", self._pause)
        self._is_stopped = True

    def come_back(self) -> None:
        self._interrupted.clear()
        if self.needs_resume():
            self._run("resume", self._resume)
            try:
                self._marker.unlink(missing_ok=True)
            except OSError as error:  # the next bridge starts a running program, which does no harm
                log.warning("the state file remains neighbour=%s error=%s", self.name, error)
        self._is_stopped = False

    def interrupt(self) -> None:
        self._interrupted.set()

    def needs_resume(self) -> bool:
        try:
            return self._marker.exists()
        except OSError:  # a folder of another user, in which nothing was written
            return False

    def _run(self, purpose: str, command: str) -> None:
        began = time.monotonic()
        status = self._status(command)
        if status != 0:
            raise NeighbourError(f"the {purpose} command ended with status {status}: {command}")
        log.info("command done command=%s neighbour=%s secs=%.1f", purpose, self.name, time.monotonic() - began)

    def _status(self, command: str) -> int:
        """Return the exit status. Raises NeighbourError after the timeout, and when it is interrupted."""
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None,  # into the log of the bridge
                start_new_session=True,
            )
        except OSError as error:
            raise NeighbourError(f"cannot run {command!r}: {error}") from error
        deadline = time.monotonic() + self._timeout_secs
        while process.poll() is None:
            if self._interrupted.is_set() or time.monotonic() >= deadline:
                _kill(process)
                why = (
                    "was interrupted" if self._interrupted.is_set() else f"did not end within {self._timeout_secs:g} s"
                )
                raise NeighbourError(f"a command {why}: {command}")
            time.sleep(POLL_SECS)
        return process.returncode


def is_freeze(command: str) -> bool:
    """Return whether a command freezes a program with its memory instead of ending it."""
    return _FREEZE.search(command) is not None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the command with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECS)
            return
