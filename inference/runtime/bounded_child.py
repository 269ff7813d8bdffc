"""A child process for work that may not end, or may need too much memory or stack: one line per job, one per answer.

A module serves as the child with a function ``main``, which sets its own limits and then answers each line of its
standard input. A job beyond the limits ends the child, and the next job starts another.
"""

import atexit
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

MAX_ANSWER_BYTES = 64 * 1024 * 1024
PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ChildEnded(Exception):
    """The child ended instead of an answer, by itself or because it took too long."""

    returncode: int  # negative: the signal
    last_line: str  # of its standard error
    took_too_long: bool


class BoundedChild:
    """The child process, started at the first job. Jobs of several threads take turns."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def answer(self, job: bytes, *, wall_secs: float) -> bytes:
        """Send a line and return the line that answers it. Raises ChildEnded."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = self._start()
            try:
                return _exchange(process, job, wall_secs)
            except ChildEnded:
                self._process = None
                raise

    def close(self) -> None:
        """End the child, which ends by itself when this process is killed."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> "subprocess.Popen[bytes]":
        # Isolated from the environment's Python settings and from the current directory.
        program = f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r}); from {self._module} import main; main()"
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-I", "-c", program], stdin=pipe, stdout=pipe, stderr=pipe)


def _exchange(process: "subprocess.Popen[bytes]", job: bytes, wall_secs: float) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the child was started without pipes")
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        process.kill()

    watchdog = threading.Timer(wall_secs, end)
    watchdog.start()
    try:
        # The child reads a whole line before it writes: neither side can wait for the other.
        process.stdin.write(job + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline(MAX_ANSWER_BYTES)
    except BrokenPipeError:
        answer = b""
    finally:
        watchdog.cancel()
    if answer.endswith(b"\n"):
        return answer
    # It may be dead already; then its own status counts.
    process.stdin.close()
    process.kill()
    errors = process.stderr.read() if process.stderr else b""
    returncode = process.wait()
    last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
    raise ChildEnded(returncode, last_line, is_late.is_set())
