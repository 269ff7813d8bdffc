"""Launcher of runner processes, with a thread of its own: the kernel kills a runner with the thread that started it.

Loading a model takes seconds, in which the dispatcher has to serve cancels and deadlines.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inference.config.engine_config import engine_config
from inference.engine.errors import EngineError
from inference.engine.process.client import RunnerExit, RunnerProcess
from inference.engine.protocol.frames import Frame, FromRunner, Ready
from inference.errors import InferenceError

log = logging.getLogger(__name__)


class Runner(Protocol):
    """The interface of a runner process to the dispatcher."""

    def start(self) -> Ready: ...

    def send(self, frame: Frame) -> None: ...

    def stop(self, timeout_secs: float) -> None: ...

    def kill(self) -> None: ...

    @property
    def pid(self) -> int:
        """Valid once it was started, also after its exit."""


OnFrame = Callable[[FromRunner], None]
OnExit = Callable[[RunnerExit], None]
RunnerFactory = Callable[[OnFrame, OnExit], Runner]


def cpu_runner(on_frame: OnFrame, on_exit: OnExit) -> Runner:
    """Make a runner of the configured model; raises ModelUnavailable."""
    return RunnerProcess(engine_config(), title="gemma-runner cpu", on_frame=on_frame, on_exit=on_exit)


@dataclass(frozen=True)
class RunnerStarted:
    """``number`` identifies a runner of this dispatcher, here and below."""

    number: int
    runner: Runner
    ready: Ready


@dataclass(frozen=True)
class RunnerStartFailed:
    """``pid``: of the process that has exited; None: there was none."""

    number: int
    code: str
    message: str
    pid: int | None = None


@dataclass(frozen=True)
class FrameReceived:
    number: int
    frame: FromRunner


@dataclass(frozen=True)
class RunnerExited:
    """``has_left``: because its deadline had passed."""

    number: int
    reason: str
    has_left: bool = False


LaunchEvent = RunnerStarted | RunnerStartFailed | FrameReceived | RunnerExited


class RunnerLauncher:
    """Starts one runner at a time and reports everything about it as an event."""

    def __init__(self, make: RunnerFactory, post: Callable[[LaunchEvent], None]) -> None:
        self._make = make
        self._post = post
        self._orders: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._starting: Runner | None = None
        self._abandoned: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="runner launcher", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def launch(self, number: int) -> None:
        """Start the runner ``number``; RunnerStarted or RunnerStartFailed follows."""
        self._orders.put(number)

    def abandon(self, number: int) -> None:
        """Give up a runner that is being started; RunnerStartFailed follows, if RunnerStarted has not come before."""
        self._abandoned.add(number)
        starting = self._starting
        if starting is not None:
            starting.kill()

    def end(self, timeout_secs: float) -> None:
        """Take no more orders; a runner that is still loading is killed."""
        self._orders.put(None)
        starting = self._starting
        if starting is not None:
            starting.kill()
        self._thread.join(timeout_secs)

    def _run(self) -> None:
        while (number := self._orders.get()) is not None:
            self._post(self._start(number))

    def _start(self, number: int) -> RunnerStarted | RunnerStartFailed:
        try:
            runner = self._make(
                lambda frame: self._post(FrameReceived(number, frame)),
                lambda runner_exit: self._post(RunnerExited(number, runner_exit.reason, runner_exit.has_left)),
            )
            self._starting = runner
            if number in self._abandoned:
                runner.kill()
            return RunnerStarted(number, runner, runner.start())
        except (EngineError, InferenceError) as error:
            pid = None if self._starting is None else self._starting.pid
            return RunnerStartFailed(number, error.code, str(error), pid)
        except OSError as error:  # no process, no memory, no descriptor: as transient as a model that is missing
            return RunnerStartFailed(number, "runner_start", str(error))
        except Exception:
            # Without this thread no runner would ever be started again, and no event would report it.
            log.exception("starting a runner failed")
            return RunnerStartFailed(number, "runner_start", "the model process could not be started")
        finally:
            self._starting = None
