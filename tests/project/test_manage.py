"""`manage.py` before the first `make run`, and with variables that cannot be used: one line, no traceback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import manage as manage_module
from tests.live_stack import PROJECT, free_port
from tests.private_environment import clean_environment


def manage(*command: str, python: str = sys.executable, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**clean_environment(), "GEMMA_BACKEND": "fake", **variables}
    return subprocess.run(
        [python, str(PROJECT / "manage.py"), *command], env=environment, capture_output=True, text=True, check=False
    )


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line of an error without a traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        ["createsuperuser", "--noinput", "--username", "ada", "--email", "a@b.c"],
        ["changepassword", "ada"],
        ["import_memories", str(PROJECT / "examples" / "meetings")],
    ],
    ids=lambda command: command[0],
)
def test_a_command_without_tables_names_the_way(command: list[str], tmp_path: Path) -> None:
    variables = {"GEMMA_DATA_DIR": str(tmp_path), "DJANGO_SUPERUSER_PASSWORD": "long enough for this"}
    line = refusal(manage(*command, **variables))
    assert "make run" in line


def test_a_python_without_django_names_the_way(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    copy = tmp_path / "manage.py"
    shutil.copy(PROJECT / "manage.py", copy)
    done = subprocess.run([bare / "bin" / "python", copy, "check"], capture_output=True, text=True, check=False)
    assert refusal(done).startswith(f"error: Django is not installed for {bare}/bin/python; run `make run` once first")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "pip").touch()
    done = subprocess.run([bare / "bin" / "python", copy, "check"], capture_output=True, text=True, check=False)
    assert f"use {tmp_path}/.venv/bin/python manage.py" in refusal(done)


@pytest.mark.parametrize(
    ("command", "place"), [("check", "/proc/nope"), ("serve", "/dev/null/data"), ("createsuperuser", "/proc/1/mem/x")]
)
def test_a_data_directory_that_cannot_be_is_named(command: str, place: str) -> None:
    assert refusal(manage(command, GEMMA_DATA_DIR=place)).startswith(f"error: GEMMA_DATA_DIR={place!r}: expected")


def test_a_file_in_the_place_of_the_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    place = str(tmp_path / "data")
    assert f"GEMMA_DATA_DIR={place!r}" in refusal(manage("serve", GEMMA_DATA_DIR=place))


def test_serve_names_it_also_when_all_secrets_are_set() -> None:
    secrets = {"SECRET_KEY": "s" * 50, "JWT_SIGNING_KEY": "j" * 50}
    done = manage("serve", "--skip-checks", GEMMA_DATA_DIR="/proc/nope", **secrets)
    assert "GEMMA_DATA_DIR='/proc/nope' is not a directory that this user may write to" in refusal(done)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_host_that_is_not_ours_is_named(host: str, tmp_path: Path) -> None:
    variables = {"GEMMA_DATA_DIR": str(tmp_path), "GEMMA_HOST": host, "GEMMA_PORT": str(free_port())}
    line = refusal(manage("serve", **variables))
    assert f"GEMMA_HOST={host!r}" in line
    assert "GEMMA_PORT" not in line


INTERRUPTING = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_MODULE"] and os.environ.pop("ONCE", None):
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("django", ["check"]),
        ("django.core.management", ["api_keys", "list"]),
        ("gemma_project.settings", ["ask", "Hello"]),
        ("chat.models", ["migrate"]),
        ("chat.rag.models", ["import_memories", "."]),
    ],
)
def test_ctrl_c_at_any_time_of_a_start_is_one_line(module: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    variables = {"GEMMA_DATA_DIR": str(tmp_path), "INTERRUPTED_MODULE": module, "ONCE": "1"}
    done = manage(*command, PYTHONPATH=str(tmp_path), **variables)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "caf\udce9"],
        ["user_data", "export", "\udcff", "file.json"],
        ["import_memories", "folder/\udc80.srt", "--owner=ada"],
        ["createsuperuser", "--username=\udce9da"],
        ["backup", "\udce9\udce8.tar"],
        ["\udce9"],
    ],
    ids=lambda command: command[0].encode(errors="replace").decode(),
)
def test_an_argument_that_is_no_text_is_named(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", *command])
    with pytest.raises(SystemExit) as end:
        manage_module.main()
    [argument] = [part for part in command if not part.isprintable()]
    shown = os.fsencode(argument).decode(errors="backslashreplace")
    assert end.value.code == f"error: the argument '{shown}' is not UTF-8"


def test_such_an_argument_on_a_command_line(tmp_path: Path) -> None:
    done = manage("ask", "caf\udce9", GEMMA_DATA_DIR=str(tmp_path))
    assert refusal(done) == r"error: the argument 'caf\xe9' is not UTF-8"
    assert not list(tmp_path.iterdir())
