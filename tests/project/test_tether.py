"""A tethered command dies with its parent, whatever becomes of the parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from gemma_project.supervisor import tether
from tests.live_stack import wait_until

# Starts a tethered sleeper, prints its pid and waits for whatever happens to itself.
PARENT = """
import subprocess, sys
from gemma_project.supervisor.tether import tethered
child = subprocess.Popen(tethered(["sleep", "300"]))
print(child.pid, flush=True)
child.wait()
"""


def start_parent() -> tuple["subprocess.Popen[str]", psutil.Process]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    wait_until(lambda: child.cmdline()[:1] == ["sleep"], timeout_secs=10, what="the command runs")
    return parent, child


def test_a_killed_parent_takes_its_child_along() -> None:
    parent, child = start_parent()
    parent.kill()
    parent.wait()
    wait_until(lambda: not alive(child), timeout_secs=5, what="the child is gone")


def test_sigterm_to_the_parent_does_too() -> None:
    parent, child = start_parent()
    parent.send_signal(signal.SIGTERM)
    parent.wait()
    wait_until(lambda: not alive(child), timeout_secs=5, what="the child is gone")


def test_a_parent_that_is_gone_already_means_no_start(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid() + 1), "touch", str(mark)]
    assert subprocess.run(command, check=False).returncode == 1
    assert not mark.exists()


def test_the_commands_exit_status_and_arguments_come_through() -> None:
    done = subprocess.run(
        tether.tethered([sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == "['a b', '']\n"


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
