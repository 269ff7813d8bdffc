"""Starts the parts of the service, restarts those that exit, and stops them in order.

The order of stopping, and why:

1. The worker: it claims nothing new, running answers get DRAIN_SECS, the others return to the queue. It is stopped
   first because clients receive the end of their answers only while the web process and Valkey run.
2. The web process: its streams end; clients reconnect with the index of their last token.
3. Valkey: the two others write to it until they end. On SIGTERM it flushes its file.

What does not end in its time (``Part.stop_secs``) is killed. A second signal kills everything at once.
"""

import signal
import time
from collections.abc import Callable

from gemma_project.supervisor.errors import PartFailed
from gemma_project.supervisor.part import Part, PartProcess, describe_exit
from gemma_project.supervisor.signals import SignalPipe

# Exits of one part, in a row, that end a start-up. Later it is started again for as long as the service runs.
MAX_EXITS_AT_START = 3
POLL_SECS = 0.05
SUCCESS = describe_exit(0)


class StopRequested(Exception):
    """A signal arrived while the service was starting."""


class Supervisor:
    """Owns the processes of the parts, in the order in which they are to be stopped."""

    def __init__(self, signals: SignalPipe, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._processes: list[PartProcess] = []
        self._is_up = False

    def add(self, part: Part) -> PartProcess:
        """Start a part. Parts are stopped in the reverse order of their starts."""
        process = PartProcess(part)
        self._processes.append(process)
        process.start()
        return process

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_secs: float) -> None:
        """Watch over the parts until ``ready()``. Raises PartFailed after the time, StopRequested on a signal."""
        deadline = time.monotonic() + timeout_secs
        while not ready():
            if time.monotonic() > deadline:
                raise PartFailed(f"{what} within {timeout_secs:g} s")
            self._watch_once(POLL_SECS)

    def run_to_end(self, part: Part) -> None:
        """Run a command that ends by itself, watching over the others. Raises PartFailed unless it succeeds."""
        process = PartProcess(part)
        process.start()
        try:
            while (ending := process.reap()) is None:
                self._watch_once(POLL_SECS)
        finally:
            self._kill([process])
        if ending != SUCCESS:
            raise PartFailed(f"{part.title} failed ({ending}); {part.hint}")

    def watch(self) -> None:
        """Supervise until a stop signal."""
        self._is_up = True
        try:
            while True:
                due = [process.restart_at for process in self._processes if process.restart_at is not None]
                # The exit of a child and a signal both end the wait early.
                self._watch_once(min(due) - time.monotonic() if due else 3600.0)
        except StopRequested:
            return

    def stop(self) -> None:
        """End all parts in order; return when no process is left."""
        stops_before = self._signals.stops
        deadline = time.monotonic()
        for process in reversed(self._processes):
            process.signal(signal.SIGTERM)
            # Counted from the start: time that one part did not need is the next one's.
            deadline += process.part.stop_secs
            allowed_secs = deadline - time.monotonic()
            while process.is_running and not process.reap():
                self._signals.wait(POLL_SECS)
                if self._signals.stops > stops_before:
                    self._say("asked again: killing what is left")
                    self._kill(self._processes)
                elif time.monotonic() > deadline:
                    self._say(f"{process.part.title} did not end within {allowed_secs:.1f} s: killed")
                    self._kill([process])

    def _watch_once(self, timeout_secs: float) -> None:
        self._signals.wait(timeout_secs)
        if self._signals.stops:
            raise StopRequested
        for process in self._processes:
            ending = process.reap()
            if ending is not None:
                if not self._is_up and process.n_exits >= MAX_EXITS_AT_START:
                    exits = f"ended {process.n_exits} times before the service was up ({ending})"
                    raise PartFailed(f"{process.part.title} {exits}; {process.part.hint}")
                self._say(f"{process.part.title} ended ({ending}); starting it again in {process.delay_secs:g} s")
            elif process.restart_at is not None and process.restart_at <= time.monotonic():
                try:
                    process.start()
                except OSError as error:
                    # No memory or no process left: the parts that still run must stay supervised.
                    process.defer_start()
                    reason = f"cannot be started ({error.strerror})"
                    self._say(f"{process.part.title} {reason}; trying again in {process.delay_secs:g} s")
                else:
                    self._say(f"{process.part.title} started again (process {process.pid})")

    def _kill(self, processes: list[PartProcess]) -> None:
        for process in processes:
            process.signal(signal.SIGKILL)
        while any(process.is_running and not process.reap() for process in processes):
            self._signals.wait(POLL_SECS)
