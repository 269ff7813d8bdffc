"""Records that are written, the ids that they end with, and values that try to be lines of their own."""

import io
import logging
import logging.config
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from gemma_project.log_filters import OneLineFormatter, RequestContext, UnexpectedOnly
from inference.runtime import log_context

LOGGING: dict[str, Any] = settings.LOGGING
LINE = LOGGING["formatters"]["line"]
HOSTILE = [
    "id\n2026-01-01 ERROR forged: line",
    "id\r\nERROR forged: line",
    "\x1b[2J\x1b[31mred",
    "bell\x07 and backspace\x08",
    "next\x85line",
    "line\u2028separator",
    "paragraph\u2029separator",
    "vertical\x0btab and form\x0cfeed",
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return the output of the settings' handler."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(OneLineFormatter(LINE["fmt"], style=LINE["style"], defaults=LINE["defaults"]))
    handler.addFilter(RequestContext())
    log = logging.getLogger("tests.lines")
    log.addHandler(handler)
    yield output
    log.removeHandler(handler)


@pytest.fixture
def log(stream: io.StringIO) -> logging.Logger:
    return logging.getLogger("tests.lines")


@pytest.mark.parametrize(("status", "is_logged"), [(500, True), (503, False), (504, False), (None, True)])
def test_regular_answers_with_an_error_status_are_not_logged(status: int | None, is_logged: bool) -> None:
    record = logging.makeLogRecord({"msg": "/chat"} | ({} if status is None else {"status_code": status}))
    assert UnexpectedOnly().filter(record) is is_logged


def test_the_handler_of_the_settings_has_filter_and_formatter() -> None:
    handler = logging.config.DictConfigurator(LOGGING)
    handler.configure()
    stderr = next(h for h in logging.getLogger().handlers if isinstance(h.formatter, OneLineFormatter))
    assert any(isinstance(f, RequestContext) for f in stderr.filters)


def test_a_line_ends_with_the_ids_of_its_context(log: logging.Logger, stream: io.StringIO) -> None:
    generation = uuid4()
    log.warning("outside")
    with log_context.bound(request="abc"):
        log.warning("before it is known")
        log_context.bind(generation=generation)
        log.warning("inside value=%d", 5)
    lines = stream.getvalue().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "outside",
        "before it is known request=abc",
        f"inside value=5 request=abc generation={generation}",
    ]


def test_a_generation_that_the_message_names_is_not_repeated(log: logging.Logger, stream: io.StringIO) -> None:
    generation = uuid4()
    with log_context.bound(request="abc", generation=generation):
        log.warning("claimed generation=%s", generation)
    assert stream.getvalue().strip().endswith(f"claimed generation={generation} request=abc")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_thread_without_context_finds_the_request_of_the_generation(
    log: logging.Logger, stream: io.StringIO, as_text: bool
) -> None:
    generation = uuid4()
    with log_context.bound(request="abc", generation=generation):
        pass
    log.warning("log lost generation=%s", str(generation) if as_text else generation)
    log.warning("log lost generation=%(id)s", {"id": generation})
    log.warning("sequence refused sequence=%s", f"{generation}/3")
    log.warning("log lost generation=%s", uuid4())
    *known, unknown = stream.getvalue().splitlines()
    assert len(known) == 3
    assert all(line.endswith("request=abc") for line in known)
    assert "request=" not in unknown


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_cannot_begin_a_line(log: logging.Logger, stream: io.StringIO, value: str) -> None:
    log.warning("refused value=%s", value)
    written = stream.getvalue()
    assert len(written.splitlines()) == 1
    assert written.count("\n") == 1
    assert "\x1b" not in written


def test_a_traceback_keeps_its_lines(log: logging.Logger, stream: io.StringIO) -> None:
    try:
        int("boom")
    except ValueError:
        with log_context.bound(request="abc"):
            log.exception("unit failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("unit failed request=abc")
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-1].startswith("  ValueError: ")


def test_a_record_of_a_handler_without_the_filter_is_formatted() -> None:
    formatter = OneLineFormatter(LINE["fmt"], style=LINE["style"], defaults=LINE["defaults"])
    assert formatter.format(logging.makeLogRecord({"msg": "plain"})).endswith("plain")


@pytest.mark.parametrize("value", HOSTILE)
def test_an_error_text_does_not_begin_a_line_of_its_own(value: str, log: logging.Logger, stream: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError(value)

    try:
        fail()
    except ValueError:
        log.exception("failed", stack_info=True)
    first, *rest = stream.getvalue().split("\n")[:-1]
    assert first.endswith("failed")
    assert all(line.startswith("  ") and line.isprintable() for line in rest)


def test_a_long_value_is_cut(log: logging.Logger, stream: io.StringIO) -> None:
    log.warning("requester=%s", "x" * 1_000_000)
    assert len(stream.getvalue()) < 5000
    assert "characters more" in stream.getvalue()
