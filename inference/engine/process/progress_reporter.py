"""Thread of a runner that reports its progress, so that a long step is not mistaken for a hung process."""

import threading
from collections.abc import Callable

from inference.engine.protocol.frames import Alive


class ProgressReporter:
    """Sends Alive every ``interval_secs`` in which ``is_progressing`` returns True."""

    def __init__(
        self, is_progressing: Callable[[], bool], send: Callable[[Alive], None], *, interval_secs: float
    ) -> None:
        self._is_progressing = is_progressing
        self._send = send
        self._interval_secs = interval_secs
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="runner-progress", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Send nothing more, not even a report that was due."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._interval_secs):
            if self._is_progressing():
                self._send(Alive())
