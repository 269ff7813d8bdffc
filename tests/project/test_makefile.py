"""The environment that `make` makes: a half-made one is made again, and the missing package is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_stack import PROJECT
from tools import test_fast

# Without ensurepip `python3 -m venv` writes pyvenv.cfg, and fails.
WITHOUT_PIP = """#!/bin/sh
for last; do :; done
case "$*" in
*venv*) mkdir -p "$last/bin"; echo home = /usr > "$last/pyvenv.cfg"; touch "$last/bin/python"; exit 1 ;;
esac
exec {python} "$@"
"""


def make(environment: Path, python: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--no-print-directory", f"VENV={environment}", f"PYTHON={python}", f"{environment}/bin/pip"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def broken_python(tmp_path: Path) -> str:
    path = tmp_path / "python-without-venv"
    path.write_text(WITHOUT_PIP.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_a_failed_venv_names_the_package_and_leaves_nothing(tmp_path: Path, broken_python: str) -> None:
    environment = tmp_path / "environment"
    done = make(environment, broken_python)
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stdout
    assert not environment.exists()


def test_a_half_made_environment_is_made_again(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text("home = /nowhere\n")
    (environment / "bin" / "python").symlink_to("/nowhere/python")
    assert make(environment, sys.executable).returncode == 0
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True, check=False).returncode == 0


def test_a_whole_environment_is_left_alone(tmp_path: Path, broken_python: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    assert make(tmp_path, broken_python).returncode == 0


def test_too_old_a_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text('#!/bin/sh\ntest "$1" = -V && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    done = make(tmp_path / "environment", str(old))
    assert done.returncode != 0
    assert "is Python 3.9.2; this needs Python 3.11" in done.stdout


def test_the_fast_tests_exist() -> None:
    assert all(test_fast.test_files(test_fast.TESTS / path) for path in test_fast.PATHS)


def test_the_readme_names_the_package_of_venv() -> None:
    assert "python3-venv" in (PROJECT / "README.md").read_text(encoding="utf-8")
