"""Filters and the formatter of the log: which records are written, the ids they carry, and how a value is escaped."""

import logging
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

from inference.runtime import log_context

# C0 and C1 control characters, and the two separators that some viewers break lines at.
MAX_MESSAGE_CHARS = 4000
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class UnexpectedOnly(logging.Filter):
    """Drops regular answers with a 5xx status: a refusal that may be retried (503), a request out of time (504)."""

    answers = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) not in self.answers


class RequestContext(logging.Filter):
    """Adds ``record.context``: the request and the generation of the line, as key=value."""

    def filter(self, record: logging.LogRecord) -> bool:
        generation = log_context.generation_id()
        request = log_context.request_id()
        if not request:
            arguments: Iterable[object] = (
                record.args.values() if isinstance(record.args, Mapping) else record.args or ()
            )
            # A sequence of the engine is named generation/epoch.
            names = (str(argument).partition("/")[0] for argument in arguments if isinstance(argument, UUID | str))
            request = next(filter(None, map(log_context.request_of, names)), "")
        fields = {"request": request} if request else {}
        if generation and "generation=" not in str(record.msg):
            fields["generation"] = generation
        record.context = "".join(f" {key}={value}" for key, value in fields.items())
        return True


class OneLineFormatter(logging.Formatter):
    """Escapes control characters of the message, so that no value can begin a line or move a terminal's cursor, and
    bounds it, so that none fills the disk.

    A traceback follows on indented lines of its own: the text of an error may come from anywhere.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return _bounded(CONTROL_CHARACTERS.sub(_escaped, super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802  logging's name and type
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  logging's name
        return _indented(super().formatStack(stack_info))


def _bounded(text: str) -> str:
    n_left = len(text) - MAX_MESSAGE_CHARS
    return text if n_left <= 0 else f"{text[:MAX_MESSAGE_CHARS]}... ({n_left} characters more)"


def _indented(text: str) -> str:
    lines = (CONTROL_CHARACTERS.sub(_escaped, line) for line in text.split("\n"))
    return "\n".join(f"  {_bounded(line)}" for line in lines)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
