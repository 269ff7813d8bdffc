#!/usr/bin/env python
"""The command line. A mistake of the operator ends with one line that names it, without a traceback."""

import os
import signal
import sys
from pathlib import Path

ENVIRONMENT = Path(__file__).resolve().parent / ".venv"
FIRST_RUN = "run `make run` once first: it makes the environment and the tables"
NO_TABLES = f"error: the database lacks tables; {FIRST_RUN} (or `manage.py migrate`)"
NEED_NO_TABLES = {"check", "help", "migrate", "probe", "serve", "status", "web", "worker", "--help", "--version"}
INTERRUPTED = 128 + signal.SIGINT

try:
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    from gemma_project.standard_streams import standard_streams
except ModuleNotFoundError as error:
    if error.name != "django":
        raise
    way = f"use {ENVIRONMENT}/bin/python manage.py" if (ENVIRONMENT / "bin" / "pip").exists() else FIRST_RUN
    sys.exit(f"error: Django is not installed for {sys.executable}; {way}")
except KeyboardInterrupt:
    sys.stderr.write("stopped\n")
    sys.exit(INTERRUPTED)


def main() -> None:
    check_arguments()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gemma_project.settings")
    # Celery would rename the worker's process; operators look for our own titles.
    os.environ.setdefault("NOSETPS", "1")
    if os.environ.get("NO_COLOR"):
        os.environ["DJANGO_COLORS"] = "nocolor"
    try:
        _ = settings.INSTALLED_APPS
    except (ImproperlyConfigured, OSError) as error:
        sys.exit(f"error: {error}")
    try:
        execute_from_command_line(sys.argv)
    except DatabaseError:
        if not has_pending_migrations():
            raise
        sys.exit(NO_TABLES)
    except SystemExit as end:
        # A command that reports the database's error by itself does not say what to do about missing tables.
        if end.code and not set(sys.argv) & NEED_NO_TABLES and has_pending_migrations():
            sys.exit(NO_TABLES)
        raise


def check_arguments() -> None:
    """End with one line for an argument that is not text: no database and no JSON would take it."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode(errors="backslashreplace")
            sys.exit(f"error: the argument '{shown}' is not UTF-8")


def has_pending_migrations() -> bool:
    """Return whether migrations are left to apply. False also when the database cannot be read."""
    try:
        executor = MigrationExecutor(connection)
        return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    except DatabaseError:
        return False


if __name__ == "__main__":
    try:
        with standard_streams("".join(sys.argv[1:2])):
            main()
    except KeyboardInterrupt:
        # Commands that stop in their own way catch it; this is Ctrl-C while one starts.
        sys.stderr.write("stopped\n")
        sys.exit(INTERRUPTED)
