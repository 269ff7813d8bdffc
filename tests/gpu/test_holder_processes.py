"""Processes that hold the GPU are killed and suspended: the next one gets it, the transcription goes on, and a process
that resumes late changes nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections

from inference.gpu.coordinator import api
from inference.gpu.coordinator.config import CoordinatorConfig
from inference.gpu.coordinator.lease import LeaseWatcher
from inference.gpu.device.lock import gpu_lock
from inference.gpu.device.port import SimulatedGpu
from inference.models.gpu import GpuLedger
from tests.gpu.lease_client_contract import until
from tests.gpu.tenants import Transcription, Wire
from tests.live_stack import PROJECT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="the processes share a file"),
]

TTL_SECS = 1.0
START_SECS = 90.0


class Holder:
    """A process, and the lines of its output."""

    def __init__(self, folder: Path, priority: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.holder_process", str(priority)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
                "REDIS_URL": settings.REDIS_URL,
                "GEMMA_SHM_DIR": str(folder),
                "GEMMA_GPU": "simulated",
                "GPU_LEASE_TTL_SECS": str(TTL_SECS),
                "GPU_PAUSE_TIMEOUT": "20",
                "GPU_FREED_TIMEOUT": "40",
            },
        )
        self.reports: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def next_word(self, event: str) -> dict[str, Any]:
        report = self.reports.get(timeout=START_SECS)
        assert report["event"] == event, report
        return report

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            report = json.loads(line)
            if report["event"] != "LeaseRefused":  # its reason to wait is tested elsewhere
                self.reports.put(report)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Holder]]:
    holders: list[Holder] = []

    def begin(priority: int = 1) -> Holder:
        holders.append(Holder(tmp_path, priority))
        return holders[-1]

    yield begin
    for holder in holders:
        holder.end()
    connections.close_all()


@pytest.fixture
def _watched(wire: Wire) -> Iterator[None]:
    """The part of a web process that deals with the GPU."""
    over = threading.Event()
    watch = LeaseWatcher(CoordinatorConfig(ttl_secs=TTL_SECS), clock=time.monotonic)

    def look() -> None:
        while not over.wait(0.05):
            watch.once(wire)
        connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("_watched")
def test_a_killed_holder_loses_it_and_the_transcription_goes_on(
    hold: Callable[..., Holder], transcription: Callable[..., Transcription], tmp_path: Path
) -> None:
    resident = transcription()
    holder = hold()
    assert holder.next_word("LeaseGranted") == {"event": "LeaseGranted", "epoch": 1, "has_lock": True}
    assert gpu_lock(SimulatedGpu.uuid, tmp_path) is None
    assert resident.n_heard("resume") == 0
    killed_at = time.monotonic()
    holder.signal(signal.SIGKILL)
    lock = None
    while (lock := gpu_lock(SimulatedGpu.uuid, tmp_path)) is None:
        assert time.monotonic() - killed_at < 1.0, "the kernel frees the lock of a process that has ended"
    lock.close()
    resident.until_heard("resume")
    # A renewal may have been on its way when it died; the rest is slack for a busy machine.
    assert time.monotonic() - killed_at < TTL_SECS + 1.0
    until(lambda: GpuLedger.objects.current().is_free)


@pytest.mark.usefixtures("_watched")
def test_a_suspended_holder_comes_back_late_and_touches_nobody_elses_lease(
    hold: Callable[..., Holder], wire: Wire
) -> None:
    late = hold()
    late.next_word("LeaseGranted")
    late.signal(signal.SIGSTOP)
    until(lambda: GpuLedger.objects.current().is_free)
    # Its lock outlives the lease: a process that is only suspended still has its memory on the GPU.
    following = hold()
    assert following.next_word("LeaseGranted") == {"event": "LeaseGranted", "epoch": 2, "has_lock": False}
    late.signal(signal.SIGCONT)
    late.next_word("LeaseLost")
    time.sleep(TTL_SECS)  # its late release, and a few renewals of the other
    seen = api.status(wire)
    assert (seen.epoch, seen.state) == (2, "gemma")
    assert following.reports.empty()


@pytest.mark.usefixtures("_watched")
def test_five_processes_of_which_the_holder_is_killed_each_time(hold: Callable[..., Holder], wire: Wire) -> None:
    contenders = [hold() for _ in range(5)]
    for epoch in range(1, 6):
        until_waiting = len(contenders) - 1
        holder = _holder_of(contenders, epoch)
        deadline = time.monotonic() + START_SECS
        while len(api.status(wire).waiting) < until_waiting:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert all(other.reports.empty() for other in contenders if other is not holder), "two at a time"
        holder.signal(signal.SIGKILL)
        contenders.remove(holder)


def _holder_of(contenders: list[Holder], epoch: int) -> Holder:
    deadline = time.monotonic() + START_SECS
    while True:
        for contender in contenders:
            if not contender.reports.empty():
                assert contender.next_word("LeaseGranted") == {
                    "event": "LeaseGranted",
                    "epoch": epoch,
                    "has_lock": True,
                }
                return contender
        assert time.monotonic() < deadline, f"nobody got lease {epoch}"
        time.sleep(0.01)
