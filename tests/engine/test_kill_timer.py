"""The kernel's timer that kills a process, in processes that wait for it."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

PATIENCE_SECS = 30.0
PROGRAM = """
import math, signal, sys, time
from inference.engine.process.kill_timer import KillTimer
timer = KillTimer()
{}
print("armed", flush=True)
time.sleep(1.0)
"""


def process_with(orders: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(orders)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        output.readline()
    return process


@pytest.mark.parametrize(
    "orders",
    [
        "timer.arm(time.monotonic() + 0.3)",
        "timer.arm(time.monotonic() - 5.0)",
        "timer.arm(math.inf); timer.arm(time.monotonic() + 0.3)",
        "timer.arm(time.monotonic() + 60.0); timer.arm(time.monotonic() + 0.3)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); timer.arm(time.monotonic() + 0.3)",
    ],
)
def test_it_kills(orders: str) -> None:
    assert process_with(orders).wait(PATIENCE_SECS) == -signal.SIGKILL


@pytest.mark.parametrize(
    "orders",
    [
        "",
        "timer.arm(math.inf)",
        "timer.arm(time.monotonic() + 60.0)",
        "timer.arm(time.monotonic() + 0.5); timer.arm(math.inf)",
        "timer.arm(time.monotonic() + 0.5); timer.arm(time.monotonic() + 60.0)",
    ],
)
def test_it_does_not_kill(orders: str) -> None:
    assert process_with(orders).wait(PATIENCE_SECS) == 0


def test_it_kills_a_stopped_process() -> None:
    process = process_with("timer.arm(time.monotonic() + 0.6)")
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert process.wait(PATIENCE_SECS) == -signal.SIGKILL
    assert time.monotonic() - began < PATIENCE_SECS
    assert not psutil.pid_exists(process.pid)
