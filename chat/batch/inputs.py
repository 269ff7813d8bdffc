"""Prompts of a batch, read from an input of any length and checked as bodies of chat requests.

An invalid line is a failure of that line alone.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chat.batch.input_files import (
    BYTE_ORDER_MARK,
    PromptFormat,
    detect_format,
    load_entries,
    open_input,
    refuse_constant,
)
from chat.errors import ChatError
from chat.schemas.chat_bodies import ChatBody, chat_request
from chat.schemas.requests import ChatRequest

KNOWN_FIELDS = {"prompt", "system", "id", *ChatBody.__struct_fields__}
MESSAGE_PATH = re.compile(r"\bmessages\[(\d+)\](\.content)?")


@dataclass(frozen=True)
class InputLine:
    """A line that is not blank; ``number`` counts from 1, blank lines included. ``data`` is None when too long."""

    number: int
    data: bytes | None


@dataclass(frozen=True)
class BatchPrompt:
    """A valid line; ``prompt_id`` is the line's "id", any JSON value. ``unknown_fields`` were ignored."""

    line: int
    prompt_id: Any
    request: ChatRequest
    digest: str
    unknown_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class LineFailure:
    """A line without an answer, and the reason."""

    line: int
    prompt_id: Any
    code: str
    message: str


@dataclass(frozen=True)
class BatchOptions:
    """Request fields of the command line for every prompt, which a line may override."""

    fields: dict[str, Any]
    system: str | None
    owner: str

    @property
    def as_dict(self) -> dict[str, Any]:
        """All options that an answer depends on."""
        return {**self.fields, "system": self.system, "owner": self.owner}

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self.as_dict, sort_keys=True).encode()).digest()


class BatchInput:
    """The input, opened once, so that a run reads one file even when another replaces it."""

    def __init__(self, path: Path, form: PromptFormat, options: BatchOptions, max_line_bytes: int) -> None:
        """Raises InputUnreadable."""
        self.path = path
        self.max_line_bytes = max_line_bytes
        self._fields = options.fields
        self._system = options.system
        self._salt = options.digest
        self._file: BinaryIO = open_input(path)
        self._entries: list[Any] | None = None
        self.form = form
        if form is PromptFormat.AUTO:
            first = next(self._file_lines(), None)
            self.form = detect_format(path, first.data if first else None, self._file)
        if self.form is PromptFormat.JSON:
            self._entries = load_entries(path, self._file)

    @property
    def unit(self) -> str:
        """Return the word for what is numbered: lines, or entries of a JSON array."""
        return "line" if self._entries is None else "entry"

    def close(self) -> None:
        self._file.close()

    def lines(self) -> Iterator[InputLine]:
        """Yield all lines from the beginning that are not blank, or the entries of a JSON document."""
        if self._entries is None:
            yield from self._file_lines()
            return
        for number, entry in enumerate(self._entries, start=1):
            row = {"prompt": entry} if isinstance(entry, str) else entry
            # A lone surrogate is refused with its line, and must not end the batch here.
            data = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")
            yield InputLine(number, data if len(data) <= self.max_line_bytes else None)

    def digest(self, line: InputLine) -> str:
        """Return a hash of line and options; of the bytes, so that a million lines are checked in seconds."""
        return hashlib.blake2b(line.data or b"", digest_size=16, key=self._salt).hexdigest()

    def parse(self, line: InputLine) -> BatchPrompt | LineFailure:
        prompt_id: Any = None
        if line.data is None:
            message = f"the {self.unit} has more than {self.max_line_bytes} bytes"
            return LineFailure(line.number, None, "too_long", message)
        names: list[str] = []
        try:
            row = self._row(line.data)
            prompt_id = row.pop("id", None)
            unknown = tuple(name for name in row if name not in KNOWN_FIELDS)
            # Before the body is made, which takes the prompt out of the row.
            names = self._message_names(row)
            request = chat_request(self._body(row))
        except (ValueError, RecursionError) as error:
            return LineFailure(line.number, prompt_id, "invalid_line", str(error))
        except ChatError as error:
            return LineFailure(line.number, prompt_id, error.code, _as_written(error.message, names))
        return BatchPrompt(line.number, prompt_id, request, self.digest(line), unknown)

    def _file_lines(self) -> Iterator[InputLine]:
        # From the start each time: the lines are read twice, to be checked and to be answered.
        self._file.seek(0)
        number = 0
        while data := self._file.readline(self.max_line_bytes + 1):
            number += 1
            if len(data) > self.max_line_bytes and not data.endswith(b"\n"):
                # The rest of a line that is too long is skipped without holding it.
                while (more := self._file.readline(self.max_line_bytes)) and not more.endswith(b"\n"):
                    pass
                yield InputLine(number, None)
            elif data.strip():
                yield InputLine(number, data.rstrip(b"\r\n"))

    def _row(self, data: bytes) -> dict[str, Any]:
        text = data.decode("utf-8-sig" if data.startswith(BYTE_ORDER_MARK) else "utf-8")
        if self.form is PromptFormat.PLAIN:
            return {"prompt": text}
        try:
            # NaN and Infinity are no JSON, and no field of a request takes them.
            row = json.loads(text, parse_constant=refuse_constant)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
        if not isinstance(row, dict):
            raise ValueError("the line is not a JSON object")  # noqa: TRY004  the line's failure, not a bug
        return row

    def _body(self, row: dict[str, Any]) -> dict[str, Any]:
        if "conversation_id" in row:
            raise ValueError("conversation_id: the prompts of a batch run in parallel, not one after the other")
        prompt, line_system = row.pop("prompt", None), row.pop("system", None)
        if (prompt is None) == (row.get("messages") is None):
            raise ValueError('exactly one of "prompt" and "messages" is required')
        messages = [{"role": "user", "content": prompt}] if prompt is not None else row["messages"]
        system = line_system if line_system is not None else self._system
        if system is not None and not _begins_with_system(messages):
            messages = [{"role": "system", "content": system}, *messages]
        # The line's options win over those of the command line; the priority is the command's alone.
        return {**self._fields, **row, "messages": messages, "priority": "batch"}

    def _message_names(self, row: dict[str, Any]) -> list[str]:
        """Return the name in the line, or on the command line, of each message of the request."""
        messages = row.get("messages")
        names = [f"messages[{n}]" for n in range(len(messages))] if isinstance(messages, list) else ["prompt"]
        has_system = row.get("system", self._system) is not None
        return ["system", *names] if has_system and not _begins_with_system(messages or []) else names


def _as_written(message: str, names: list[str]) -> str:
    """Replace paths of the request's messages in an error by the names in the line."""

    def name(match: re.Match[str]) -> str:
        index = int(match[1])
        if index >= len(names):
            return match[0]
        return names[index] + (match[2] or "" if names[index].startswith("messages") else "")

    return MESSAGE_PATH.sub(name, message)


def _begins_with_system(messages: Any) -> bool:  # noqa: ANN401
    """Check the first message only; other errors are found by ``chat_request``."""
    if not isinstance(messages, list):
        raise ValueError("messages: must be a list of messages")  # noqa: TRY004  the line's failure, not a bug
    first = messages[0] if messages else None
    return isinstance(first, dict) and first.get("role") == "system"
