"""Dead workers: only those of this machine whose process is gone."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django import Settings

from gemma_project.supervisor.tether import tethered
from inference.monitoring.liveness import LivenessLock, is_dead, remove_free_locks

HERE = f"{socket.gethostname()}:1:aa"
HOLDER = """
import django, sys; django.setup()
from inference.monitoring.liveness import LivenessLock
LivenessLock(sys.argv[1]).acquire(); print("held", flush=True); sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_folder(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_DATA_DIR = tmp_path


def test_a_killed_process_is_dead_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        tethered([sys.executable, "-c", HOLDER, HERE]),
        env=os.environ | {"GEMMA_DATA_DIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not is_dead(HERE)
        holder.send_signal(signal.SIGSTOP)
        assert not is_dead(HERE)
    finally:
        holder.kill()
        holder.communicate()
    assert is_dead(HERE)
    assert is_dead(HERE), "the check changes nothing"


def test_a_process_that_looks_is_not_taken_for_the_worker(tmp_path: Path) -> None:
    here = LivenessLock(HERE)
    here.acquire()
    assert here._descriptor is not None
    os.close(here._descriptor)
    with (tmp_path / "workers" / HERE).open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert is_dead(HERE)


def test_workers_elsewhere_and_stopped_ones_are_not_dead() -> None:
    here = LivenessLock(HERE)
    here.acquire()
    here.release()
    assert not is_dead(HERE)
    elsewhere = LivenessLock("elsewhere:2:bb")
    elsewhere.acquire()
    assert elsewhere._descriptor is not None
    os.close(elsewhere._descriptor)
    assert not is_dead("elsewhere:2:bb"), "its locks may not show here"
    assert not is_dead("")


def test_locks_of_dead_workers_are_removed_once_they_have_no_rows(tmp_path: Path) -> None:
    folder = tmp_path / "workers"
    remove_free_locks(keep=())
    alive = LivenessLock("alive")
    alive.acquire()
    for name in ("dead", "dead with rows"):
        (folder / name).touch()
    remove_free_locks(keep={"dead with rows"})
    assert {path.name for path in folder.iterdir()} == {"alive", "dead with rows"}
    alive.release()
    assert {path.name for path in folder.iterdir()} == {"dead with rows"}


def test_without_a_place_for_the_file_the_heartbeat_has_to_do(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    settings.GEMMA_DATA_DIR = tmp_path / "file"
    LivenessLock(HERE).acquire()
    assert "heartbeat only" in caplog.text
    assert not is_dead(HERE)
