"""At most one process on the GPU, whichever of five workers is killed or frozen while it holds the lease.

The GPU is simulated: a second runner on the CPU in its place, behind the same lease and the same lock.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.api.live import count
from tests.faults.breaking import FaultStack
from tests.faults.card import SIMULATED, CardWatch, watched
from tests.faults.conftest import ROUNDS, MakeStack, Seen
from tests.faults.reading import Client, Reading, numbers
from tests.live_stack import wait_until

N_WORKERS = 5
N_STREAMS = 10
N_NUMBERS = 60
N_BLOWS = max(4, ROUNDS)
# A runner needs a second or two until it is there, several times that beside other tests.
START_SLACK_SECS = 30.0
LEASE_SECS = float(SIMULATED["GPU_LEASE_TTL_SECS"])


def test_two_at_a_time_would_be_seen(tmp_path: Path) -> None:
    lock = tmp_path / "card.lock"
    lock.touch()
    watch, code = CardWatch(lock), f"file = open({str(lock)!r}); print(flush=True); input()"
    with ExitStack() as inside:
        for name, holds in (("gemma-runner gpu a", True), ("gemma-runner cpu", False), ("gemma-runner gpu b", True)):
            command = [name, "-c", code]
            process = subprocess.Popen(
                command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            inside.enter_context(process)
            inside.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
            assert (process.pid in watch.look()) is holds
    assert [len(crowd) for crowd in watch.crowds] == [2]
    assert watch.look() == []


@pytest.mark.fault(
    "6",
    f"{N_WORKERS} workers at one simulated card, {N_STREAMS} streams; kill -9 or SIGSTOP of the one that has it, "
    f"{N_BLOWS} times",
    "never two processes on the card; a killed one's is free within a second, and the next one comes; answers whole",
    quick=False,
)
@pytest.mark.timeout(240 + 30 * N_BLOWS)
def test_one_at_a_time(make_stack: MakeStack, seen: Seen) -> None:
    stack = make_stack(**SIMULATED, GEMMA_PARALLEL="2")
    stack.start()
    over, dice = threading.Event(), random.Random(6)
    with ExitStack() as inside:
        watch = inside.enter_context(watched(stack))
        for _ in range(N_WORKERS - 1):
            inside.enter_context(stack.second_worker())
        wait_until(lambda: n_started(stack) == N_WORKERS - 1, timeout_secs=120, what="the other workers are there")
        pool = inside.enter_context(ThreadPoolExecutor(N_STREAMS))
        inside.callback(over.set)  # before the pool is waited for
        futures = [pool.submit(ask_until, stack, over) for _ in range(N_STREAMS)]
        secs = [strike(watch, dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP))) for _ in range(N_BLOWS)]
        over.set()
        answers = [reading for each in futures for reading in each.result()]
    for reading in answers:
        reading.assert_whole(numbers(N_NUMBERS))
    assert {stack.row(reading.generation_id).status for reading in answers} == {"complete"}
    seen |= {"holders": len(watch.holders), "looks": watch.n_looks, "answers": len(answers)}
    seen["killed_is_free_secs"], seen["next_comes_secs"] = (max(each) for each in zip(*secs, strict=True))
    assert watch.crowds == []
    assert len(watch.holders) > N_BLOWS


def n_started(stack: FaultStack) -> int:
    """Return how many of the second workers have started."""
    return (stack.data_dir / "second-worker.log").read_text().count("worker started")


def ask_until(stack: FaultStack, over: threading.Event) -> list[Reading]:
    answers = []
    while not over.is_set():
        answers.append(Client(stack.url).read(count(N_NUMBERS, delay_ms=20, store=False)))
    return answers


def strike(watch: CardWatch, blow: signal.Signals) -> tuple[float, float]:
    """Hits the worker whose runner is on the GPU; the secs until the GPU was free (of a killed one: within a second)
    and until another runner was there. The runner of a frozen one leaves by itself before its lease ends."""
    wait_until(lambda: bool(watch.look()), timeout_secs=START_SLACK_SECS, what="somebody is on the card")
    runner = psutil.Process(watch.holders[-1])
    worker = runner.parent()
    assert worker is not None
    began = time.monotonic()
    worker.send_signal(blow)
    wait_until(lambda: runner.pid not in watch.look(), timeout_secs=START_SLACK_SECS, what="the card is free")
    free_secs = time.monotonic() - began
    assert blow != signal.SIGKILL or free_secs < 1
    wait_until(lambda: bool(watch.look()), timeout_secs=LEASE_SECS + START_SLACK_SECS, what="the next one comes")
    next_secs = time.monotonic() - began
    if blow == signal.SIGSTOP:
        worker.send_signal(signal.SIGCONT)
    return (round(free_secs, 2) if blow == signal.SIGKILL else 0.0), round(next_secs, 1)
