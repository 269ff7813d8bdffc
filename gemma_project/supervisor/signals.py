"""Signals as events to wait for: handlers only count them, one loop acts on them."""

import contextlib
import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalPipe:
    """While entered, ``wait`` sleeps until a signal or the end of a child, and ``stops`` counts requests to stop."""

    def __init__(self) -> None:
        self.stops = 0
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        # The interpreter writes to the pipe from the C handler, so no signal falls between a check and a wait.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

        def count_stop(number: int, frame: FrameType | None) -> None:
            self.stops += 1

        self._before = {number: signal.signal(number, count_stop) for number in STOP_SIGNALS}
        # A handler must exist; the byte in the pipe ends the wait, after which the loop checks its children.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout_secs: float) -> None:
        """Sleep until a signal, the end of a child or the timeout."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, timeout_secs))
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
