"""An answer on a terminal: the text on stdout as it comes, everything about it on stderr.

Knows the wire format's lines; does not know where they come from.
"""

import re
from typing import Any, TextIO

from inference.enums import StreamState

# An answer is foreign text: escape sequences in it must not reach the terminal. Tabs and line ends are fine.
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
    """Prints the lines of one answer, one after the other."""

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
        """The answer is over: its last line is ended."""
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
        """One line about the answer, for people only."""
        if not self.info.isatty():
            return
        usage, ms = line.get("usage") or {}, (line.get("timings") or {}).get("first_token")
        parts = [f"{usage.get('completion_tokens', 0)} tokens", str(line.get("finish_reason") or "")]
        parts += [f"first token after {ms:.0f} ms"] if ms else []
        parts += [f"conversation {line['conversation_id']}"] if line.get("conversation_id") else []
        self.info.write(f"({', '.join(part for part in parts if part)})\n")

    def _text(self, text: str) -> None:
        self._clear_status()
        # A file or a program gets the answer as it is.
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


def printable(text: str) -> str:
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def status_text(status: dict[str, Any]) -> str:
    """``reading the prompt, 40 %``."""
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
    """``[1] Sarah, 2026-11-17T10:03:00Z: We cannot make the first.``, with a star when the answer cites it."""
    names = [source.get("title"), source.get("speaker"), source.get("time") or _place(source), source.get("emotion")]
    head = ", ".join(str(name) for name in names if name)
    text = " ".join(str(source.get("text") or "").split())
    star = "*" if source.get("cited") else " "
    return f"{star}[{source.get('label', '')}] {head}{': ' if head else ''}{text[:200]}"


def _place(source: dict[str, Any]) -> str | None:
    start = source.get("start_time")
    return f"at {start:.0f} s" if isinstance(start, int | float) else None
