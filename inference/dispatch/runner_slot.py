"""Slot of one runner process: starts with backoff, silence check, end. Knows no generation and no lease."""

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

SILENCE_PATIENCE_SECS = 20.0  # many reports of progress
# Of the time between two checks: while this process was suspended it could receive nothing.
LONGEST_CHECK_SECS = 1.0
LONGEST_BACKOFF_SECS = 30.0
RUNNER_STOP_SECS = 2.0


class RunnerSlot:
    """``device`` labels the tokens of its runner. One thread calls every method but ``begin`` and ``end``."""

    def __init__(
        self, device: str, make: RunnerFactory, post: Callable[[LaunchEvent], None], numbers: Iterator[int]
    ) -> None:
        self.device = device
        self.ready: Ready | None = None  # properties of the runner; None while there is none
        self.pid: int | None = None
        self.last_pid: int | None = None  # also after the exit
        self.n_failed = 0  # starts since the last one that succeeded
        self.is_starting = False
        self._launcher = RunnerLauncher(make, post)
        self._numbers = numbers
        self._number = 0
        self._runner: Runner | None = None
        self._start_at = 0.0
        self._early_exit: str | None = None
        self._is_killed = False
        self._checked_at = 0.0
        self._silent_secs = 0.0

    def begin(self) -> None:
        self._launcher.begin()

    def stop(self, timeout_secs: float) -> None:
        """Let the runner save its states within that time, and wait for its exit."""
        if self._runner is not None:
            self._runner.stop(timeout_secs)

    def end(self, timeout_secs: float) -> None:
        """End the launcher's thread, after ``stop``: the kernel kills the runner with it."""
        self._launcher.end(timeout_secs)

    def owns(self, event: LaunchEvent) -> bool:
        """Return whether the event is about the present runner."""
        return event.number == self._number

    @property
    def is_empty(self) -> bool:
        """True without a process, and none being started."""
        return self._runner is None and not self.is_starting

    def can_start(self, now: float) -> bool:
        return self.is_empty and now >= self._start_at

    def start(self) -> None:
        self._number = next(self._numbers)
        self.is_starting, self._early_exit, self.last_pid = True, None, None
        self._launcher.launch(self._number)

    def runner_started(self, event: RunnerStarted) -> RunnerStartFailed | None:
        """Take the runner in; return a failure if its exit was reported before its start."""
        self.last_pid = event.runner.pid
        if self._early_exit is not None:
            return RunnerStartFailed(event.number, "runner_died", self._early_exit)
        self._runner, self.ready, self.pid = event.runner, event.ready, event.runner.pid
        self.is_starting, self._is_killed, self.n_failed, self._silent_secs = False, False, 0, 0.0
        ready = event.ready
        start_ms = ready.load_ms + ready.warmup_ms
        log.info("runner is ready device=%s model=%s start_ms=%.0f", self.device, ready.model_name, start_ms)
        return None

    def start_failed(self, event: RunnerStartFailed, now: float) -> None:
        self.is_starting = False
        self.last_pid = event.pid or self.last_pid
        self.n_failed += 1
        self._start_at = now + min(2.0 ** (self.n_failed - 1), LONGEST_BACKOFF_SECS)
        log.error("runner did not start device=%s code=%s reason=%s", self.device, event.code, event.message)

    def runner_exited(self, reason: str, now: float) -> bool:
        """Note the exit; False while the start is not reported, which then reports the failure."""
        if self.is_starting:
            self._early_exit = reason
            return False
        self._runner, self.ready, self.pid = None, None, None
        self._start_at = now
        return True

    def note_frame(self) -> None:
        self._silent_secs = 0.0

    def check_silence(self, now: float, *, is_busy: bool) -> None:
        """Kill a runner that has work and sends no frame, not even of its progress; an idle one sends none."""
        passed_secs, self._checked_at = min(now - self._checked_at, LONGEST_CHECK_SECS), now
        self._silent_secs = self._silent_secs + passed_secs if is_busy else 0.0
        if self._silent_secs > SILENCE_PATIENCE_SECS:
            self.kill(f"it has sent nothing for {SILENCE_PATIENCE_SECS:.0f} s")

    def send(self, frame: Frame) -> None:
        if self._runner is not None:
            self._runner.send(frame)

    def kill(self, reason: str, *, is_expected: bool = False) -> None:
        """Kill the process; RunnerExited follows, or RunnerStartFailed for one that is loading."""
        if self.is_starting:
            self._launcher.abandon(self._number)
        elif self._runner is not None and not self._is_killed:
            self._is_killed = True
            log.log(
                logging.INFO if is_expected else logging.ERROR,
                "runner killed device=%s reason=%s",
                self.device,
                reason,
            )
            self._runner.kill()
