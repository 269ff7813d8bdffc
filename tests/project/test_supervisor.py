"""The supervisor with small processes: restarts with back-off, order of stopping, failures that end a start."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from gemma_project.supervisor import supervisor as module
from gemma_project.supervisor.errors import PartFailed
from gemma_project.supervisor.part import LONGEST_DELAY_SECS, Part, PartProcess, describe_exit
from gemma_project.supervisor.signals import SignalPipe
from gemma_project.supervisor.supervisor import StopRequested, Supervisor
from tests.live_stack import wait_until

SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(300)"]
FAILING = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
# Notes SIGTERM in the file named by its argument, then ends.
POLITE = [
    sys.executable,
    "-S",
    "-c",
    """
import signal, sys, time
def end(number, frame):
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], "a").write("started " + sys.argv[2] + "\\n")
time.sleep(300)
""",
]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(300)",
]


class SupervisorHarness:
    """A supervisor and the lines that it printed."""

    def __init__(self, signals: SignalPipe) -> None:
        self.lines: list[str] = []
        self.supervisor = Supervisor(signals, self.lines.append)


@pytest.fixture
def harness() -> Iterator[SupervisorHarness]:
    with SignalPipe() as signals:
        harness = SupervisorHarness(signals)
        yield harness
        harness.supervisor.stop()


def after(delay_secs: float, number: signal.Signals) -> None:
    """A signal to this process, later."""
    threading.Timer(delay_secs, os.kill, (os.getpid(), number)).start()


def pid_of(process: PartProcess) -> int:
    assert process.pid is not None
    return process.pid


def test_a_killed_part_comes_back_with_a_clear_line(harness: SupervisorHarness) -> None:
    process = harness.supervisor.add(Part("gemma-x", SLEEPER, 1.0))
    first = pid_of(process)
    os.kill(first, signal.SIGKILL)
    harness.supervisor.wait_until(lambda: process.pid not in (None, first), what="no restart", timeout_secs=10)
    assert harness.lines == [
        "gemma-x ended (signal SIGKILL); starting it again in 0.5 s",
        f"gemma-x started again (process {process.pid})",
    ]


def test_the_delay_doubles_and_is_bounded() -> None:
    process = PartProcess(Part("gemma-x", FAILING, 1.0))
    delays = []
    for n_exits in range(1, 12):
        process.n_exits = n_exits
        delays.append(process.delay_secs)
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_DELAY_SECS


def test_a_long_run_resets_the_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    process = PartProcess(Part("gemma-x", FAILING, 1.0))
    process.start()
    process.n_exits = 5
    monkeypatch.setattr("gemma_project.supervisor.part.STEADY_SECS", 0.0)
    wait_until(lambda: process.reap() is not None, timeout_secs=10, what="it ends")
    assert process.n_exits == 1


def test_a_part_that_keeps_dying_ends_the_start(harness: SupervisorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_project.supervisor.part.FIRST_DELAY_SECS", 0.01)
    harness.supervisor.add(Part("gemma-x", FAILING, 1.0, hint="see the log"))
    with pytest.raises(PartFailed, match=r"gemma-x ended 3 times .*\(exit status 3\); see the log"):
        harness.supervisor.wait_until(lambda: False, what="never", timeout_secs=20)


def test_once_up_a_part_is_started_again_for_ever(harness: SupervisorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_project.supervisor.part.FIRST_DELAY_SECS", 0.001)
    process = harness.supervisor.add(Part("gemma-x", FAILING, 1.0))
    after(2.0, signal.SIGTERM)
    harness.supervisor.watch()
    assert process.n_exits > module.MAX_EXITS_AT_START


def test_a_part_that_cannot_be_started_now_is_started_later(
    harness: SupervisorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory or no process left, which is when children get killed: the others must not die of it."""
    process = harness.supervisor.add(Part("gemma-x", SLEEPER, 1.0))
    first, start, faults = pid_of(process), PartProcess.start, iter([OSError(12, "Cannot allocate memory")] * 2)

    def start_or_fail(process: PartProcess) -> None:
        if fault := next(faults, None):
            raise fault
        start(process)

    monkeypatch.setattr("gemma_project.supervisor.part.FIRST_DELAY_SECS", 0.01)
    monkeypatch.setattr(PartProcess, "start", start_or_fail)
    os.kill(first, signal.SIGKILL)
    harness.supervisor.wait_until(lambda: process.pid not in (None, first), what="no restart", timeout_secs=10)
    assert harness.lines[1:] == [
        "gemma-x cannot be started (Cannot allocate memory); trying again in 0.02 s",
        "gemma-x cannot be started (Cannot allocate memory); trying again in 0.04 s",
        f"gemma-x started again (process {process.pid})",
    ]


def test_waiting_has_a_limit(harness: SupervisorHarness) -> None:
    with pytest.raises(PartFailed, match=r"nothing came within 0\.2 s"):
        harness.supervisor.wait_until(lambda: False, what="nothing came", timeout_secs=0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_stop_signal_ends_the_watch_at_once(harness: SupervisorHarness, number: signal.Signals) -> None:
    after(0.2, number)
    started = time.monotonic()
    harness.supervisor.watch()
    assert time.monotonic() - started < 2.0


def test_a_signal_during_the_start_ends_it(harness: SupervisorHarness) -> None:
    after(0.2, signal.SIGINT)
    with pytest.raises(StopRequested):
        harness.supervisor.wait_until(lambda: False, what="never", timeout_secs=20)


def test_parts_stop_one_after_the_other_last_started_first(harness: SupervisorHarness, tmp_path: Path) -> None:
    log = tmp_path / "order"
    for name in ("valkey", "web", "worker"):
        harness.supervisor.add(Part(name, [*POLITE, str(log), name], 5.0))
        wait_until(partial(says, log, f"started {name}"), timeout_secs=10, what=f"{name} is ready")
    harness.supervisor.stop()
    assert [line for line in read(log).splitlines() if not line.startswith("started")] == ["worker", "web", "valkey"]


def test_a_process_that_ignores_sigterm_is_killed(harness: SupervisorHarness, tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    process = psutil.Process(pid_of(harness.supervisor.add(Part("gemma-x", [*STUBBORN, str(mark)], 0.3))))
    wait_until(mark.exists, timeout_secs=10, what="it ignores SIGTERM")
    started = time.monotonic()
    harness.supervisor.stop()
    assert time.monotonic() - started < 2.0
    assert not process.is_running()
    assert harness.lines == ["gemma-x did not end within 0.3 s: killed"]


def test_after_a_second_signal_everything_is_killed_at_once(harness: SupervisorHarness, tmp_path: Path) -> None:
    processes = []
    for name in ("one", "two"):
        process = harness.supervisor.add(Part(name, [*STUBBORN, str(tmp_path / name)], 60.0))
        processes.append(psutil.Process(pid_of(process)))
        wait_until((tmp_path / name).exists, timeout_secs=10, what="it ignores SIGTERM")
    after(0.2, signal.SIGINT)
    harness.supervisor.stop()
    assert not any(process.is_running() for process in processes)
    assert harness.lines == ["asked again: killing what is left"]


def test_a_command_that_succeeds_is_no_failure(harness: SupervisorHarness) -> None:
    harness.supervisor.run_to_end(Part("once", [sys.executable, "-S", "-c", "pass"], 1.0))
    assert harness.lines == []


def test_a_command_that_fails_says_how(harness: SupervisorHarness) -> None:
    with pytest.raises(PartFailed, match=r"once failed \(exit status 3\); the lines above say why"):
        harness.supervisor.run_to_end(Part("once", FAILING, 1.0))


def test_a_signal_ends_the_command_too(harness: SupervisorHarness) -> None:
    after(0.2, signal.SIGINT)
    before = set(psutil.Process().children())
    with pytest.raises(StopRequested):
        harness.supervisor.run_to_end(Part("once", SLEEPER, 1.0))
    assert set(psutil.Process().children()) <= before


def test_ctrl_c_in_the_terminal_reaches_the_supervisor_alone(harness: SupervisorHarness) -> None:
    process = harness.supervisor.add(Part("gemma-x", SLEEPER, 1.0))
    assert os.getpgid(pid_of(process)) != os.getpgid(0)


def test_exits_in_words() -> None:
    assert describe_exit(0) == "exit status 0"
    assert describe_exit(-signal.SIGSEGV) == "signal SIGSEGV"
    assert describe_exit(-99) == "signal 99"


def says(path: Path, words: str) -> bool:
    return words in read(path)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
