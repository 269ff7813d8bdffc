"""The repository holds sources alone: nothing that was built or installed beside them."""

import subprocess
from pathlib import Path

import pytest

from tests.live_stack import PROJECT

MAX_FILE_BYTES = 2_000_000


def listed(*options: str) -> list[str]:
    if not (PROJECT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def test_no_file_is_tracked_that_is_to_be_ignored() -> None:
    assert listed("--cached", "--ignored", "--exclude-standard") == []


def test_no_environment_or_cache_is_tracked() -> None:
    """Also of a name that nobody has put on the list of ignored ones."""
    folders = {part for name in listed() for part in Path(name).parts[:-1]}
    assert not {"site-packages", "node_modules", "__pycache__"} & folders
    assert not [name for name in listed() if Path(name).name == "pyvenv.cfg"]


def test_no_tracked_file_is_large() -> None:
    sizes = {name: (PROJECT / name).stat().st_size for name in listed() if (PROJECT / name).is_file()}
    assert len(sizes) > 500
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}
