"""Starting runners: whatever goes wrong is reported as an event, and the next order is taken."""

import queue
from collections.abc import Iterator

import pytest

from inference.dispatch.runner_launcher import (
    LaunchEvent,
    OnExit,
    OnFrame,
    Runner,
    RunnerLauncher,
    RunnerStarted,
    RunnerStartFailed,
)
from inference.engine.errors import EngineError
from tests.inference.stub_runner import READY, StubRunner

PATIENCE_SECS = 10.0


@pytest.fixture
def events() -> "queue.SimpleQueue[LaunchEvent]":
    return queue.SimpleQueue()


@pytest.fixture
def faults() -> list[Exception]:
    """Errors raised by making the next runners; after them they are made."""
    return []


@pytest.fixture
def launcher(events: "queue.SimpleQueue[LaunchEvent]", faults: list[Exception]) -> Iterator[RunnerLauncher]:
    def make(on_frame: OnFrame, on_exit: OnExit) -> Runner:
        if faults:
            raise faults.pop(0)
        return StubRunner()

    launcher = RunnerLauncher(make, events.put)
    launcher.begin()
    yield launcher
    launcher.end(PATIENCE_SECS)


@pytest.mark.parametrize("fault", [EngineError("no model"), OSError("no process"), RuntimeError("a bug")])
def test_a_start_that_fails_is_told_and_the_next_one_works(
    launcher: RunnerLauncher, events: "queue.SimpleQueue[LaunchEvent]", faults: list[Exception], fault: Exception
) -> None:
    faults.append(fault)
    launcher.launch(1)
    failed = events.get(timeout=PATIENCE_SECS)
    assert isinstance(failed, RunnerStartFailed)
    assert failed.number == 1
    launcher.launch(2)
    started = events.get(timeout=PATIENCE_SECS)
    assert isinstance(started, RunnerStarted)
    assert (started.number, started.ready) == (2, READY)
