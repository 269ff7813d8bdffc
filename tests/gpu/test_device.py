"""The simulated GPU's memory is that of its processes, and the lock of a GPU lasts as long as its holder."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from inference.gpu.device.lock import gpu_lock
from inference.gpu.device.port import SimulatedGpu

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_living_process_holds_memory_and_an_ended_one_none() -> None:
    card = SimulatedGpu(total_mb=4096)
    process = subprocess.Popen(SLEEP, stdin=subprocess.PIPE)
    try:
        # Until it has become Python it has the size of an empty program.
        while not psutil.Process(process.pid).memory_info().rss:
            pass
        used = card.vram_used_mb_of([process.pid])
        assert used > 0
        assert card.free_mb == pytest.approx(4096 - card.vram_used_mb_of([process.pid]), abs=32)
    finally:
        process.kill()
    # Not yet waited for: a zombie, whose memory is free all the same.
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert card.vram_used_mb_of([process.pid]) == 0
    process.wait()
    assert card.vram_used_mb_of([process.pid]) == 0
    assert card.free_mb == 4096


def test_a_process_asked_about_long_ago_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process id may belong to another process by now."""
    monkeypatch.setattr("inference.gpu.device.port._resident_mb", lambda pid: pid)
    card = SimulatedGpu(total_mb=4096)
    assert (card.vram_used_mb_of([1000]), card.free_mb) == (1000, 3096)
    assert (card.vram_used_mb_of([200]), card.free_mb) == (200, 3896)


def test_one_holder_of_a_lock_at_a_time(tmp_path: Path) -> None:
    with gpu_lock("GPU-1", tmp_path) as lock:  # type: ignore[union-attr]  # the assertion is that it is held
        assert lock.fd >= 0
        assert gpu_lock("GPU-1", tmp_path) is None
        other = gpu_lock("GPU-2", tmp_path)
        assert other is not None
        other.close()
    again = gpu_lock("GPU-1", tmp_path)
    assert again is not None
    again.close()


def test_a_runner_that_was_given_the_lock_holds_it_until_its_end(tmp_path: Path) -> None:
    lock = gpu_lock("GPU-1", tmp_path)
    assert lock is not None
    process = subprocess.Popen(SLEEP, stdin=subprocess.PIPE, pass_fds=[lock.fd])
    lock.close()
    try:
        assert gpu_lock("GPU-1", tmp_path) is None
    finally:
        process.kill()
        process.wait()
    again = gpu_lock("GPU-1", tmp_path)
    assert again is not None
    again.close()


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "gemma-gpu-GPU-1.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        gpu_lock("GPU-1", tmp_path)
    assert not (tmp_path / "precious").exists()
