"""Terminal input and output of commands: an answer's text goes to stdout, everything about it to stderr.

Knows the lines of the wire format, not their origin.
"""

import re
import sys
from typing import Any, TextIO

from django.core.management.base import CommandError

from inference.enums import StreamState

# Escape sequences in an answer must not reach the terminal; tabs and line feeds may.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CLEAR_LINE = "\r\x1b[K"

STATES: dict[str, str] = {
    StreamState.QUEUED: "waiting in the queue",
    StreamState.RETRIEVING: "searching memories",
    StreamState.WAITING_FOR_GPU: "waiting for the GPU",
    StreamState.LOADING: "loading the model",
    StreamState.SUMMARIZING: "reading the message in parts",
    StreamState.PREFILL: "reading the prompt",
    StreamState.YIELDING: "moving to another device",
}


class AnswerPrinter:
    """Prints the wire lines of one answer."""

    def __init__(self, out: TextIO, info: TextIO) -> None:
        self.out = out
        self.info = info
        self._has_status = False
        self._ends_line = True

    def line(self, line: dict[str, Any]) -> None:
        if text := line.get("token"):
            self._text(text)
        if status := line.get("status"):
            self._status(status)
        if line.get("done"):
            self.close()

    def close(self) -> None:
        """End the last line of the answer."""
        self._clear_status()
        if not self._ends_line:
            self.out.write("\n")
            self.out.flush()
            self._ends_line = True

    def sources(self, sources: list[dict[str, Any]]) -> None:
        if not sources:
            return
        self.info.write("\nSources:\n")
        for source in sources:
            self.info.write(f"  {printable(source_text(source))}\n")

    def summary(self, line: dict[str, Any]) -> None:
        """Print one line about the answer, on a terminal only."""
        if not self.info.isatty():
            return
        usage, ms = line.get("usage") or {}, (line.get("timings") or {}).get("first_token")
        parts = [f"{usage.get('completion_tokens', 0)} tokens", str(line.get("finish_reason") or "")]
        parts += [f"first token after {ms:.0f} ms"] if ms else []
        parts += [f"conversation {line['conversation_id']}"] if line.get("conversation_id") else []
        self.info.write(f"({', '.join(part for part in parts if part)})\n")

    def _text(self, text: str) -> None:
        self._clear_status()
        # A file or a program gets the answer unchanged.
        self.out.write(printable(text) if self.out.isatty() else text)
        self.out.flush()
        self._ends_line = text.endswith("\n")

    def _status(self, status: dict[str, Any]) -> None:
        if not self.info.isatty() or not self._ends_line:
            return
        self.info.write(CLEAR_LINE + printable(status_text(status)))
        self.info.flush()
        self._has_status = True

    def _clear_status(self) -> None:
        if self._has_status:
            self.info.write(CLEAR_LINE)
            self.info.flush()
            self._has_status = False


def read_stdin() -> str:
    """Read standard input as UTF-8 in every locale, without a byte order mark. Raises CommandError."""
    if sys.stdin is None:
        raise CommandError("standard input is closed")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"standard input is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise CommandError(f"cannot read standard input: {error.strerror or error}") from error


def printable(text: str) -> str:
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def printable_line(text: str) -> str:
    """Return the text without line breaks and marks that reorder it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def status_text(status: dict[str, Any]) -> str:
    """Return a status such as ``reading the prompt, 40 %``."""
    state = str(status.get("state", ""))
    parts = [STATES.get(state, state)]
    if status.get("position") is not None:
        parts.append(f"place {status['position']}")
    if status.get("wait_s") is not None:
        parts.append(f"about {status['wait_s']:.0f} s")
    if status.get("progress") is not None:
        parts.append(f"{status['progress'] * 100:.0f} %")
    if status.get("reason"):
        parts.append(str(status["reason"]))
    return ", ".join(parts) + " ..."


def source_text(source: dict[str, Any]) -> str:
    """Return ``[1] Sarah, 2026-11-17T10:03:00Z: We cannot make the first.``, with a star when cited."""
    start = source.get("start_time")
    offset = f"at {start:.0f} s" if isinstance(start, int | float) else None
    names = [source.get("title"), source.get("speaker"), source.get("time") or offset, source.get("emotion")]
    head = ", ".join(str(name) for name in names if name)
    text = " ".join(str(source.get("text") or "").split())
    star = "*" if source.get("cited") else " "
    return f"{star}[{source.get('label', '')}] {head}{': ' if head else ''}{text[:200]}"
