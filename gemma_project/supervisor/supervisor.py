"""Starts the parts of the service, starts them again when they die, and ends them in order.

The order of stopping, and why:

1. The worker: it takes nothing new, running answers get DRAIN_SECS, the rest goes back to the queue. It goes first
   because its readers can hear the end of their answers only while web and Valkey live.
2. The web process: its streams end; clients come back with the index of their last token.
3. Valkey: the two others write to it until they end. On SIGTERM it flushes its file.

What does not end in its time (``Part.stop_secs``) is killed. A second signal kills everything at once.
"""

import signal
import time
from collections.abc import Callable

from gemma_project.supervisor.errors import PartFailed
from gemma_project.supervisor.part import Life, Part, describe_exit
from gemma_project.supervisor.signals import SignalPipe

# Deaths of one part, in a row, that end a start-up. Later it is started again for as long as the service runs.
MAX_DEATHS_AT_START = 3
POLL_SECS = 0.05
SUCCESS = describe_exit(0)


class StopRequested(Exception):
    """A signal asked for the end while the service was starting."""


class Supervisor:
    """Owns the lives of the parts, in the order in which they are to be stopped."""

    def __init__(self, signals: SignalPipe, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._lives: list[Life] = []
        self._is_up = False

    def add(self, part: Part) -> Life:
        """Start a part. Parts are stopped in the reverse order of their starts."""
        life = Life(part)
        self._lives.append(life)
        life.start()
        return life

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_secs: float) -> None:
        """Watch over the parts until ``ready()``. Raises PartFailed after the time, StopRequested on a signal."""
        deadline = time.monotonic() + timeout_secs
        while not ready():
            if time.monotonic() > deadline:
                raise PartFailed(f"{what} within {timeout_secs:g} s")
            self._watch_once(POLL_SECS)

    def run_to_end(self, part: Part) -> None:
        """Run a command that ends by itself, watching over the others. Raises PartFailed unless it succeeds."""
        life = Life(part)
        life.start()
        try:
            while (how := life.reap()) is None:
                self._watch_once(POLL_SECS)
        finally:
            self._kill([life])
        if how != SUCCESS:
            raise PartFailed(f"{part.title} failed ({how}); {part.says_why}")

    def watch(self) -> None:
        """Run until a signal asks for the end."""
        self._is_up = True
        try:
            while True:
                due = [life.restart_at for life in self._lives if life.restart_at is not None]
                # A child's death and a signal both end the wait early.
                self._watch_once(min(due) - time.monotonic() if due else 3600.0)
        except StopRequested:
            return

    def stop(self) -> None:
        """End all parts in order; returns when nothing of them is left."""
        stops_before = self._signals.stops
        deadline = time.monotonic()
        for life in reversed(self._lives):
            life.signal(signal.SIGTERM)
            # Counted from the start: time that one part did not need is the next one's.
            deadline += life.part.stop_secs
            allowed_secs = deadline - time.monotonic()
            while life.is_running and not life.reap():
                self._signals.wait(POLL_SECS)
                if self._signals.stops > stops_before:
                    self._say("asked again: killing what is left")
                    self._kill(self._lives)
                elif time.monotonic() > deadline:
                    self._say(f"{life.part.title} did not end within {allowed_secs:.1f} s: killed")
                    self._kill([life])

    def _watch_once(self, timeout_secs: float) -> None:
        self._signals.wait(timeout_secs)
        if self._signals.stops:
            raise StopRequested
        for life in self._lives:
            how = life.reap()
            if how is not None:
                self._mourn(life, how)
            elif life.restart_at is not None and life.restart_at <= time.monotonic():
                self._start_again(life)

    def _start_again(self, life: Life) -> None:
        try:
            life.start()
        except OSError as error:
            # No memory or no process left: the parts that still run need us more than ever.
            life.put_off()
            self._say(f"{life.part.title} cannot be started ({error.strerror}); trying again in {life.delay_secs:g} s")
        else:
            self._say(f"{life.part.title} started again (process {life.pid})")

    def _mourn(self, life: Life, how: str) -> None:
        if not self._is_up and life.deaths >= MAX_DEATHS_AT_START:
            deaths = f"ended {life.deaths} times before the service was up ({how})"
            raise PartFailed(f"{life.part.title} {deaths}; {life.part.says_why}")
        self._say(f"{life.part.title} ended ({how}); starting it again in {life.delay_secs:g} s")

    def _kill(self, lives: list[Life]) -> None:
        for life in lives:
            life.signal(signal.SIGKILL)
        while any(life.is_running and not life.reap() for life in lives):
            self._signals.wait(POLL_SECS)
