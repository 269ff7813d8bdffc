"""The settings as a process sees them: defaults, refusals on the command line, and the table in the README."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from gemma_project.environment import Environment
from tests.live_stack import PROJECT
from tests.private_environment import clean_environment

SHOW = """
import json, sys, django
from django.conf import settings
django.setup()
print(json.dumps({name: str(getattr(settings, name)) for name in sys.argv[1:]}))
"""


def settings_with(tmp_path: Path, *names: str, **variables: str) -> dict[str, str]:
    """The named settings of a fresh process with the variables."""
    environment = {"DJANGO_SETTINGS_MODULE": "gemma_project.settings", "GEMMA_DATA_DIR": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *names],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=True,
    )
    shown: dict[str, str] = json.loads(done.stdout)
    return shown


def manage(tmp_path: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), *command],
        env={**clean_environment(), "GEMMA_DATA_DIR": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_defaults_need_no_other_service(tmp_path: Path) -> None:
    shown = settings_with(
        tmp_path, "GEMMA_HOST", "GEMMA_PORT", "RAG_SERVICE_URL", "GPU_COORDINATOR_URL", "REDIS_URL", "GEMMA_MODEL_PATH"
    )
    assert shown == {
        "GEMMA_HOST": "127.0.0.1",
        "GEMMA_PORT": "8001",
        "RAG_SERVICE_URL": "None",
        "GPU_COORDINATOR_URL": "None",
        "REDIS_URL": f"unix://{tmp_path}/run/valkey.sock",
        "GEMMA_MODEL_PATH": "None",
    }


def test_sqlite_is_shared_safely_between_processes(tmp_path: Path) -> None:
    shown = settings_with(tmp_path, "DATABASES")["DATABASES"]
    assert "IMMEDIATE" in shown
    assert "journal_mode=WAL" in shown
    assert "'timeout': 20" in shown
    assert str(tmp_path / "gemma.sqlite3") in shown


def test_a_database_url_selects_postgresql(tmp_path: Path) -> None:
    shown = settings_with(tmp_path, "DATABASES", DATABASE_URL="postgres://gemma:pw@db:5432/chats")["DATABASES"]
    assert "django.db.backends.postgresql" in shown
    assert "'CONN_MAX_AGE': 0" in shown
    assert "IMMEDIATE" not in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEMMA_PORT", "eighty"),
        ("GEMMA_CONTEXT_SIZE", "-1"),
        ("GEMMA_BACKEND", "vllm"),
        ("REDIS_URL", "localhost"),
        ("DATABASE_URL", "mysql://h/db"),
        ("JWT_ONLY", "perhaps"),
        ("ANONYMOUS_NETWORKS", "everyone"),
        ("GEMMA_SYSTEM_PROMPT_FILE", "/nowhere/prompt.txt"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_ends_every_command_with_its_name_and_no_traceback(tmp_path: Path, name: str, value: str) -> None:
    done = manage(tmp_path, "serve", **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}=")
    assert value in done.stderr
    assert "Traceback" not in done.stderr


def test_a_short_signing_key_is_refused_without_being_shown(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", JWT_SIGNING_KEY="hunter2")
    assert done.returncode == 1
    assert "JWT_SIGNING_KEY" in done.stderr
    assert "at least 32 bytes" in done.stderr
    assert "hunter2" not in done.stderr


def test_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    first = settings_with(tmp_path, "SECRET_KEY", "JWT_SIGNING_KEY")
    assert settings_with(tmp_path, "SECRET_KEY", "JWT_SIGNING_KEY") == first
    assert first["SECRET_KEY"] != first["JWT_SIGNING_KEY"]
    for name in ("secret_key", "jwt_signing_key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_database_is_private_in_a_directory_that_is_not(tmp_path: Path, before: int | None) -> None:
    tmp_path.chmod(0o1777)
    path = tmp_path / "gemma.sqlite3"
    if before is not None:
        for name in (path, path.with_name("gemma.sqlite3-wal")):
            name.touch()
            name.chmod(before)
    settings_with(tmp_path, "DATABASES")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_secrets_from_files(tmp_path: Path) -> None:
    values = {
        "SECRET_KEY": "s" * 50,
        "JWT_SIGNING_KEY": "j" * 50,
        "JWT_SIGNING_KEY_PREVIOUS": "p" * 50,
        "DATABASE_URL": "postgres://gemma:hunter2@db/chats",
        "REDIS_URL": "redis://:hunter2@cache:6379/0",
        "GPU_REDIS_URL": "redis://:hunter3@gpu:6379/0",
    }
    files = {name: tmp_path / name.lower() for name in values}
    for name, file in files.items():
        file.write_text(values[name] + "\n")
    shown = settings_with(tmp_path, *values, **{f"{name}_FILE": str(file) for name, file in files.items()})
    assert shown == values


def test_a_refused_address_from_a_file_does_not_show_its_password(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("reddis://:hunter2@cache:6379")
    done = manage(tmp_path, "check", REDIS_URL_FILE=str(tmp_path / "url"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: REDIS_URL=")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(("variables", "secure"), [({}, "False"), ({"GEMMA_HTTPS": "true"}, "True")])
def test_cookies_where_https_is(tmp_path: Path, variables: dict[str, str], secure: str) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS", "SECURE_PROXY_SSL_HEADER")
    shown = settings_with(tmp_path, *names, **variables)
    assert (shown["SESSION_COOKIE_SECURE"], shown["CSRF_COOKIE_SECURE"]) == (secure, secure)
    assert (shown["SECURE_HSTS_SECONDS"] == "31536000", "FORWARDED_PROTO" in shown["SECURE_PROXY_SSL_HEADER"]) == (
        secure == "True",
        secure == "True",
    )


def test_celery_takes_json_only_and_acknowledges_early(tmp_path: Path) -> None:
    shown = settings_with(
        tmp_path, "CELERY_ACCEPT_CONTENT", "CELERY_TASK_ACKS_LATE", "CELERY_BROKER_URL", "CELERY_WORKER_CONCURRENCY"
    )
    assert shown == {
        "CELERY_ACCEPT_CONTENT": "['json']",
        "CELERY_TASK_ACKS_LATE": "False",
        "CELERY_BROKER_URL": f"redis+socket://{tmp_path}/run/valkey.sock?virtual_host=0",
        "CELERY_WORKER_CONCURRENCY": "4",
    }


def test_the_readme_lists_exactly_the_variables_that_are_read(settings: Settings) -> None:
    environment: Environment = settings.ENVIRONMENT
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z][^|]*`[^|]*) \| [^|]* \| [^|]* \|$", readme, flags=re.MULTILINE)
    listed = set()
    for cell in rows:
        names = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", cell))
        listed |= names | ({f"{name}_FILE" for name in names} if "`..._FILE`" in cell else set())
    assert listed == environment.names


def test_the_private_environment_hides_the_shells_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GEMMA_MODEL_PATH", "/somebody/elses.gguf")
    monkeypatch.setitem(os.environ, "DATABASE_URL", "postgres://somebody/else")
    assert not {"GEMMA_MODEL_PATH", "DATABASE_URL"} & set(clean_environment())
