"""Preconditions of a part of the service: the model file, Redis, the tables.

Each step raises NotReady with a message for the operator.
"""

import time
from collections.abc import Callable

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from gemma_project.checks import is_loopback
from gemma_project.environment import without_password
from inference.auth import service_token
from inference.config.default_model import ModelDamaged, ensure_default_model
from inference.config.free_memory import free_ram
from inference.config.from_settings import requested_config
from inference.config.memory_budget import check_memory
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.config import BackendKind
from inference.engine.errors import ModelFileError
from inference.errors import TooLittleMemory

POLL_SECS = 0.2


class NotReady(Exception):
    """Something that the part needs is missing; the message says what and where."""


def prepare_model() -> None:
    """Ensure a whole GGUF file that fits into memory; the default model is put together first."""
    if settings.GEMMA_BACKEND is BackendKind.FAKE:
        return
    try:
        if settings.GEMMA_MODEL_PATH is None:
            ensure_default_model(settings.GEMMA_MODEL_FILE)
        check_model_file(settings.GEMMA_MODEL_FILE)
        check_memory(requested_config(), free_ram())
    except (ModelDamaged, ModelFileError, TooLittleMemory) as error:
        raise NotReady(str(error)) from error
    except OSError as error:
        raise NotReady(f"the model file {settings.GEMMA_MODEL_FILE} cannot be used: {error}") from error


def wait_for_redis(timeout_secs: float) -> None:
    """Wait until Redis answers a ping. Raises NotReady naming the address, without its password."""
    client = redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=2)

    def answers() -> str | None:
        try:
            client.ping()
        except redis.RedisError as error:
            return str(error)
        return None

    try:
        _wait(answers, f"Redis at REDIS_URL={without_password(settings.REDIS_URL)}", timeout_secs)
    finally:
        client.close()


def migrate() -> None:
    """Bring the tables up to date. Raises NotReady when the database cannot be used."""
    try:
        call_command("migrate", interactive=False, verbosity=0)
    except DatabaseError as error:
        raise NotReady(f"the database (DATABASE_URL, GEMMA_DATA_DIR) cannot be used: {str(error).strip()}") from error
    finally:
        connection.close()


def check_callers() -> None:
    """Raises NotReady when the port is open to other machines, and there is nothing that a caller there could show."""
    is_local = is_loopback(settings.GEMMA_HOST)
    has_network = not settings.JWT_ONLY and any(not network.is_loopback for network in settings.ANONYMOUS_NETWORKS)
    if is_local or has_network or service_token.has_keys():
        return
    if not get_user_model()._default_manager.filter(is_active=True).exists():
        raise NotReady(
            f"GEMMA_HOST={settings.GEMMA_HOST} is reached from other machines, but there is no user, no key of service "
            "tokens and no network without credentials: make a user (`make superuser`), or set JWT_SECRET_PRIMARY or "
            "ANONYMOUS_NETWORKS, or GEMMA_HOST=127.0.0.1"
        )


def wait_for_migrations(timeout_secs: float) -> None:
    """Wait until another process has applied all migrations."""

    def applied() -> str | None:
        try:
            executor = MigrationExecutor(connection)
            plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError as error:
            return str(error).strip()
        finally:
            connection.close()
        return f"{len(plan)} migrations are not applied (manage.py migrate)" if plan else None

    _wait(applied, "the database", timeout_secs)


def _wait(complaint: Callable[[], str | None], what: str, timeout_secs: float) -> None:
    deadline = time.monotonic() + timeout_secs
    while (text := complaint()) is not None:
        if time.monotonic() > deadline:
            raise NotReady(f"{what} is not ready after {timeout_secs:g} s: {text}")
        time.sleep(POLL_SECS)
