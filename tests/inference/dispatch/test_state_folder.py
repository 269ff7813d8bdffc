"""The folder of states on their way: private, bounded, and empty without a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inference.dispatch.state_folder import StateFolder

OTHER = """
import sys, time
from pathlib import Path
import django
django.setup()
from inference.dispatch.state_folder import StateFolder
folder = StateFolder(Path(sys.argv[1]), 100)
(folder.new() / "1.move").write_bytes(b"state")
print(folder.path, flush=True)
time.sleep(60)
"""


def other_process(base: Path) -> tuple["subprocess.Popen[str]", Path]:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "gemma_project.settings"}
    command = [sys.executable, "-c", OTHER, str(base)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    process, theirs = other_process(tmp_path)
    first = StateFolder(tmp_path, 100)
    assert len(list(theirs.rglob("*.move"))) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    second = StateFolder(tmp_path, 100)
    assert not theirs.exists()
    assert first.path.exists()
    for folder in (first, second):
        folder.close()
    assert [path.name for path in (tmp_path / f"gemma-kv-{os.getuid()}").iterdir()] == ["lock"]


def test_nobody_else_can_look_into_it(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, 100)
    assert [path.stat().st_mode & 0o077 for path in (folder.path, folder.path.parent, folder.new())] == [0, 0, 0]
    folder.close()


@pytest.mark.parametrize("how", ["open", "link"])
def test_a_folder_that_somebody_else_may_have_made_is_refused(tmp_path: Path, how: str) -> None:
    place = tmp_path / f"gemma-kv-{os.getuid()}"
    if how == "open":
        place.mkdir()
        place.chmod(0o777)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="GEMMA_SHM_DIR"):
        StateFolder(tmp_path, 100)


def test_clearing_takes_what_was_not_taken_in(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, 100)
    (folder.new() / "1.move").write_bytes(b"state")
    folder.clear()
    assert list(folder.path.rglob("*.move")) == []
    assert folder.new().is_dir()
    folder.close()


def test_copies_take_at_most_half_of_what_is_free(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, 1 << 60)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert folder.max_bytes <= free * 0.6
    folder.close()
    assert StateFolder(tmp_path, 100).max_bytes == 100


def test_a_second_close_closes_no_other_file(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, 1 << 20)
    folder.close()
    with (tmp_path / "other").open("w") as other:  # takes the number of the lock
        folder.close()
        other.write("still open")
    assert (tmp_path / "other").read_text() == "still open"
