"""One supervisor per data directory, and a lock that no dead process keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_project.supervisor.errors import DataDirInUse
from gemma_project.supervisor.lock import DataDirLock

HOLDER = """
import sys
from pathlib import Path
from gemma_project.supervisor.lock import DataDirLock
with DataDirLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    with DataDirLock(tmp_path), pytest.raises(DataDirInUse) as caught:
        DataDirLock(tmp_path).__enter__()
    assert f"process {os.getpid()}" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_it_can_be_taken_again_after_it_was_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDirLock(tmp_path / "new"):
            pass


def test_a_killed_holder_frees_it_and_its_children_do_not_keep_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataDirInUse):
            DataDirLock(tmp_path).__enter__()
        holder.kill()
    with DataDirLock(tmp_path):
        # A child that inherited the descriptor would keep the lock for as long as it lives.
        child = subprocess.Popen(["sleep", "300"])
    try:
        with DataDirLock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_shorter_pid_does_not_leave_digits_of_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "serve.lock").write_text("99999999999\n")
    with DataDirLock(tmp_path):
        assert (tmp_path / "serve.lock").read_text() == f"{os.getpid()}\n"
