"""Kind: standard streams that a command cannot use. Every command, not only those that answer; never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_stack import PROJECT
from tests.private_environment import clean_environment

COMMANDS = [
    "api_keys list",
    "purge_status",
    "import_memories examples/meetings --dry-run",
    "showmigrations",
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    assert shell("migrate --verbosity 0", "", place)[0] == 0
    source = "from django.contrib.auth.models import User; User.objects.create_user('jörg')"
    assert shell(f'shell -c "{source}"', ">/dev/null", place)[0] == 0
    assert shell("api_keys create jörg --name Schlüssel", ">/dev/null", place)[0] == 0
    return place


def shell(command: str, redirection: str, data_dir: Path, **variables: str) -> tuple[int, str]:
    """Exit status and standard error of a command."""
    environment = {**clean_environment(), "GEMMA_BACKEND": "fake", "GEMMA_DATA_DIR": str(data_dir), **variables}
    line = f"{sys.executable} manage.py {command} {redirection}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_full_device(command: str, data_dir: Path) -> None:
    status, printed = shell(command, ">/dev/full", data_dir)
    assert (status, printed.splitlines()[-1]) == (1, "error: standard output: No space left on device")
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", COMMANDS[:1])
def test_closed_output(command: str, data_dir: Path) -> None:
    assert shell(command, ">&-", data_dir) == (1, "error: standard output is closed\n")


@pytest.mark.parametrize("command", COMMANDS[3:])
def test_a_reader_that_leaves(command: str, data_dir: Path) -> None:
    assert shell(command, "| true", data_dir) == (1, "")


@pytest.mark.parametrize("redirection", ["2>&-", "<&-", ">/dev/null 2>/dev/full"])
def test_streams_that_are_not_needed(redirection: str, data_dir: Path) -> None:
    assert shell(COMMANDS[1], redirection, data_dir) == (0, "")


def test_an_encoding_without_the_characters(data_dir: Path) -> None:
    status, printed = shell("api_keys list", "", data_dir, PYTHONIOENCODING="ascii:strict")
    assert status == 0, printed
