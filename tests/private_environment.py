"""What every test process has to itself: a data directory, a Valkey and variables. Made before Django reads them.

A run with several workers has one of each per worker, and Django gives each a database of its own.
"""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from django.conf import settings

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from gemma_project.supervisor.tether import tethered

# Values that a developer's shell or a running service may have set must not reach the tests.
OWN_NAMES = {"REDIS_URL", "DATABASE_URL", "SECRET_KEY", "DEBUG", "LOG_LEVEL", "ALLOWED_HOSTS", "ANONYMOUS_NETWORKS"}
OWN_NAMES |= {"REDIS_URL_FILE", "DATABASE_URL_FILE", "SECRET_KEY_FILE", "TRUSTED_PROXIES", "RETENTION_DAYS"}
OWN_PREFIXES = ("HISTORY_", "GEMMA_", "JWT_", "LIMIT_", "RAG_", "GPU_", "QUEUE_", "STREAM_")
TEST_DATABASE_VARIABLE = "GEMMA_TEST_DATABASE_URL"


def clean_environment() -> dict[str, str]:
    """This process's variables without any that the service reads."""
    return {
        name: value for name, value in os.environ.items() if name not in OWN_NAMES and not name.startswith(OWN_PREFIXES)
    }


def enter() -> Path:
    """Point this process at a new private environment; returns its directory. It vanishes with the process."""
    if settings.configured:
        raise RuntimeError("Django has read its settings already, perhaps for DJANGO_SETTINGS_MODULE: unset it")
    directory = Path(tempfile.mkdtemp(prefix="gemma-test-"))
    # A shell starts what runs in its background with Ctrl-C ignored, and everything started from there inherits it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = clean_environment()
    # Set by tools/with_postgres.py; anything else in DATABASE_URL is somebody's data.
    if database_url := os.environ.get(TEST_DATABASE_VARIABLE):
        environment["DATABASE_URL"] = database_url
        # Workers of a test run are started from here and come by the same way.
        environment[TEST_DATABASE_VARIABLE] = database_url
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(
        DJANGO_SETTINGS_MODULE="gemma_project.settings",
        GEMMA_DATA_DIR=str(directory / "data"),
        GEMMA_BACKEND="fake",
        GEMMA_DRAFT_MAX="0",  # tests count the fake's steps, and slow them down
        REDIS_URL=socket_url(_start_valkey(directory)),
        GPU_ADDRESS_FILE=str(Path(directory) / "gpu-addresses.json"),
    )
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _start_valkey(directory: Path) -> Path:
    socket_path = directory / "valkey.sock"
    data_dir = directory / "valkey"
    valkey.prepare_directories(socket_path, data_dir)
    server = subprocess.Popen(tethered(valkey.command(socket_path, data_dir)), stdout=subprocess.DEVNULL)
    atexit.register(server.wait, 5)
    atexit.register(server.terminate)
    deadline = time.monotonic() + 10
    while not valkey.answers(socket_path):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the tests' Valkey did not start (exit status {server.poll()})")
        time.sleep(0.01)
    return socket_path
