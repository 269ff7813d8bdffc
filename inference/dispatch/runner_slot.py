"""The place of one runner process: started with patience, watched, ended. Knows no generation and no lease."""

import logging
from collections.abc import Callable, Iterator

from inference.dispatch.runner_launcher import (
    LaunchEvent,
    Runner,
    RunnerFactory,
    RunnerLauncher,
    RunnerStarted,
    RunnerStartFailed,
)
from inference.engine.protocol.frames import Frame, Ready

log = logging.getLogger(__name__)

SILENCE_PATIENCE_SECS = 180.0  # no step of any model takes so long
LONGEST_BACKOFF_SECS = 30.0
RUNNER_STOP_SECS = 2.0


class RunnerSlot:
    """``device`` is what its tokens are labelled with. One thread calls everything but ``begin`` and ``end``."""

    def __init__(
        self, device: str, make: RunnerFactory, post: Callable[[LaunchEvent], None], numbers: Iterator[int]
    ) -> None:
        self.device = device
        self.ready: Ready | None = None  # what the runner said of itself; None while there is none
        self.pid: int | None = None
        self.last_pid: int | None = None  # also after its end
        self.n_failed = 0  # starts, since one succeeded
        self.is_starting = False
        self._launcher = RunnerLauncher(make, post)
        self._numbers = numbers
        self._number = 0
        self._runner: Runner | None = None
        self._start_at = 0.0
        self._died_early: str | None = None
        self._is_killed = False
        self._heard_at = 0.0

    def begin(self) -> None:
        self._launcher.begin()

    def stop(self, timeout_secs: float) -> None:
        """Let the runner save what it has in that time, and wait for its end."""
        if self._runner is not None:
            self._runner.stop(timeout_secs)

    def end(self, timeout_secs: float) -> None:
        """After ``stop``: the kernel kills a runner together with the launcher's thread."""
        self._launcher.end(timeout_secs)

    def owns(self, event: LaunchEvent) -> bool:
        """Whether the event is about the present runner, and not about a former one."""
        return event.number == self._number

    @property
    def is_empty(self) -> bool:
        """No process, and none on its way."""
        return self._runner is None and not self.is_starting

    def may_start(self, now: float) -> bool:
        return self.is_empty and now >= self._start_at

    def start(self) -> None:
        self._number = next(self._numbers)
        self.is_starting, self._died_early, self.last_pid = True, None, None
        self._launcher.launch(self._number)

    def take(self, event: RunnerStarted, now: float) -> RunnerStartFailed | None:
        """The runner is ready, unless its end was told before its start."""
        self.last_pid = event.runner.pid
        if self._died_early is not None:
            return RunnerStartFailed(event.number, "runner_died", self._died_early)
        self._runner, self.ready, self.pid = event.runner, event.ready, event.runner.pid
        self.is_starting, self._is_killed, self.n_failed, self._heard_at = False, False, 0, now
        ready = event.ready
        log.info("%s: %s is ready after %.0f ms", self.device, ready.model_name, ready.load_ms + ready.warmup_ms)
        return None

    def failed(self, event: RunnerStartFailed, now: float) -> None:
        self.is_starting = False
        self.last_pid = event.pid or self.last_pid
        self.n_failed += 1
        self._start_at = now + min(2.0 ** (self.n_failed - 1), LONGEST_BACKOFF_SECS)
        log.error("%s: the model did not start (%s): %s", self.device, event.code, event.message)

    def gone(self, reason: str, now: float) -> bool:
        """The process has ended; False when its start was not told yet, and that will tell it."""
        if self.is_starting:
            self._died_early = reason
            return False
        self._runner, self.ready, self.pid = None, None, None
        self._start_at = now
        return True

    def heard(self, now: float) -> None:
        self._heard_at = now

    def watch(self, now: float, *, is_busy: bool) -> None:
        """A runner with work that says nothing is stuck; an idle one has nothing to say."""
        if not is_busy:
            self._heard_at = now
        elif now - self._heard_at > SILENCE_PATIENCE_SECS:
            self.kill(f"it has said nothing for {SILENCE_PATIENCE_SECS:.0f} s")

    def send(self, frame: Frame) -> None:
        if self._runner is not None:
            self._runner.send(frame)

    def kill(self, why: str, *, is_expected: bool = False) -> None:
        """Its death brings everything else about: RunnerExited, or RunnerStartFailed for one that is loading."""
        if self.is_starting:
            self._launcher.abandon(self._number)
        elif self._runner is not None and not self._is_killed:
            self._is_killed = True
            log.log(logging.INFO if is_expected else logging.ERROR, "%s: ending the runner: %s", self.device, why)
            self._runner.kill()
