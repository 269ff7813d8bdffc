"""Options shared by `ask` and `batch_prompts`, their translation to the body of a chat request, and users by name.

Knows no ranges; the request's validation checks them.
"""

import argparse
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError

from chat.access.callers import Caller
from inference.monitoring import worker_report

# Field of the wire format -> (type, help). The option is the field's name with hyphens.
SAMPLING: dict[str, tuple[type[int] | type[float], str]] = {
    "max_tokens": (int, "largest number of tokens of an answer"),
    "temperature": (float, "0 always takes the most likely token"),
    "top_p": (float, "keep the most likely tokens that make up this share"),
    "top_k": (int, "keep this many of the most likely tokens; 0: all"),
    "min_p": (float, "keep tokens at least this likely relative to the most likely"),
    "repeat_penalty": (float, "make recent tokens less likely; 1: off"),
    "presence_penalty": (float, "make tokens that occurred less likely"),
    "frequency_penalty": (float, "make tokens less likely the more often they occurred"),
    "seed": (int, "draw the same tokens each time"),
    "rag_top_k": (int, "how many memories to search for"),
}


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for system prompt, sampling, retrieval, deadline and owner."""
    system = parser.add_mutually_exclusive_group()
    system.add_argument("--system", help="system prompt instead of the default one")
    system.add_argument("--system-file", type=Path, help="file that holds the system prompt")
    for name, (kind, text) in SAMPLING.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end an answer before this text; repeatable")
    parser.add_argument("--use-rag", action="store_true", default=None, help="search memories for each prompt")
    parser.add_argument(
        "--timeout", type=float, dest="timeout_s", metavar="SECS", help="stop an answer after this time"
    )
    owner = parser.add_mutually_exclusive_group()
    owner.add_argument("--user", metavar="NAME", help="act as this user")
    owner.add_argument("--owner", metavar="KEY", help='act as this owner key, such as "service:gateway"')


def request_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as fields of a request's body, without the system prompt."""
    names = [*SAMPLING, "stop", "use_rag", "timeout_s"]
    return {name: options[name] for name in names if options.get(name) is not None}


def system_prompt(options: dict[str, Any]) -> str | None:
    """Return the system prompt of the options. Raises CommandError for an unreadable file."""
    path: Path | None = options.get("system_file")
    if path is None:
        return options.get("system")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--system-file {path}: {error}") from error


def user_named(name: str) -> AbstractBaseUser:
    """Return the user with this name. Raises CommandError for an unknown one."""
    users = get_user_model()._default_manager
    user = users.filter(**{get_user_model().USERNAME_FIELD: name}).first()
    if user is None:
        raise CommandError(f"there is no user {name!r}")
    return user


def caller_of(options: dict[str, Any]) -> Caller:
    """Return the user, owner key or local identity of the options. Raises CommandError for an unknown user."""
    if name := options.get("user"):
        return Caller.of_user(user_named(name))
    if key := options.get("owner"):
        try:
            return Caller(key)
        except ValueError as error:
            raise CommandError(f"--owner: {error}") from error
    return Caller.local()


def require_service() -> None:
    """Raises CommandError when no worker runs."""
    if worker_report.last_report() is None:
        raise CommandError(
            "the service is not running: no worker has reported within the last "
            f"{worker_report.REPORT_TTL_SECS} s. Start it with `manage.py serve`; if it runs, give this "
            "command the same GEMMA_DATA_DIR (or REDIS_URL and DATABASE_URL)."
        )
