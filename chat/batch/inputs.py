"""The prompts of a batch, read line by line from a file of any length.

A line is checked as the body of a chat request is; what is wrong with it stays that line's own failure.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from chat.batch.errors import InputUnreadable
from chat.errors import ChatError
from chat.schemas.chat_bodies import chat_request
from chat.schemas.requests import ChatRequest

JSONL_SUFFIXES = {".jsonl", ".ndjson"}


class PromptFormat(StrEnum):
    AUTO = "auto"  # by the file's name, else by its first line
    JSONL = "jsonl"  # one JSON object a line
    PLAIN = "plain"  # one prompt a line


@dataclass(frozen=True)
class InputLine:
    """One line that is not blank; ``number`` counts from 1 with blank lines included. ``data`` None: too long."""

    number: int
    data: bytes | None


@dataclass(frozen=True)
class BatchPrompt:
    """A line that can be asked; ``prompt_id`` is the line's own name for it, any JSON value."""

    line: int
    prompt_id: Any
    request: ChatRequest
    digest: str


@dataclass(frozen=True)
class LineFailure:
    """A line without an answer, and why."""

    line: int
    prompt_id: Any
    code: str
    message: str


@dataclass(frozen=True)
class BatchOptions:
    """What the command line says about every prompt: fields of a request's body, which a line's own override."""

    fields: dict[str, Any]
    system: str | None
    owner: str

    @property
    def named(self) -> dict[str, Any]:
        """Everything an answer depends on beside its line."""
        return {**self.fields, "system": self.system, "owner": self.owner}

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self.named, sort_keys=True).encode()).digest()


class BatchInput:
    """The input file. It is opened once, so that one run sees one file even if another takes its name."""

    def __init__(self, path: Path, form: PromptFormat, options: BatchOptions, max_line_bytes: int) -> None:
        """Raises InputUnreadable."""
        self.path = path
        self.max_line_bytes = max_line_bytes
        self._fields = options.fields
        self._system = options.system
        self._salt = options.digest
        try:
            self._file: BinaryIO = path.open("rb")
            self._file.seek(0)
        except OSError as error:
            raise InputUnreadable(f"cannot read {path}: {error.strerror or error}") from error
        self.form = self._detected() if form is PromptFormat.AUTO else form

    def close(self) -> None:
        self._file.close()

    def lines(self) -> Iterator[InputLine]:
        """All lines from the beginning that are not blank, one in memory at a time."""
        self._file.seek(0)
        number = 0
        while data := self._file.readline(self.max_line_bytes + 1):
            number += 1
            if len(data) > self.max_line_bytes and not data.endswith(b"\n"):
                self._skip_rest()
                yield InputLine(number, None)
            elif data.strip():
                yield InputLine(number, data.rstrip(b"\r\n"))

    def digest(self, raw: InputLine) -> str:
        """The same for the same line and options. Of the bytes: a million lines are checked in seconds."""
        return hashlib.blake2b(raw.data or b"", digest_size=16, key=self._salt).hexdigest()

    def parse(self, raw: InputLine) -> BatchPrompt | LineFailure:
        prompt_id: Any = None
        try:
            if raw.data is None:
                return LineFailure(raw.number, None, "too_long", f"the line has more than {self.max_line_bytes} bytes")
            given = self._given(raw.data)
            prompt_id = given.pop("id", None)
            request = chat_request(self._body(given))
        except (ValueError, RecursionError) as error:
            return LineFailure(raw.number, prompt_id, "invalid_line", str(error))
        except ChatError as error:
            return LineFailure(raw.number, prompt_id, error.code, error.message)
        return BatchPrompt(raw.number, prompt_id, request, self.digest(raw))

    def _given(self, data: bytes) -> dict[str, Any]:
        text = data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
        if self.form is PromptFormat.PLAIN:
            return {"prompt": text}
        given = json.loads(text, parse_constant=_refuse_constant)
        if not isinstance(given, dict):
            raise ValueError("the line is not a JSON object")  # noqa: TRY004  the line's failure, not a bug
        return given

    def _body(self, given: dict[str, Any]) -> dict[str, Any]:
        if "conversation_id" in given:
            raise ValueError("conversation_id: the prompts of a batch run side by side, not one after the other")
        prompt, own_system = given.pop("prompt", None), given.pop("system", None)
        if (prompt is None) == (given.get("messages") is None):
            raise ValueError('one of "prompt" and "messages" is needed')
        messages = [{"role": "user", "content": prompt}] if prompt is not None else given["messages"]
        system = own_system if own_system is not None else self._system
        if system is not None and not _begins_with_system(messages):
            messages = [{"role": "system", "content": system}, *messages]
        return {**self._fields, **given, "messages": messages, "priority": "batch"}

    def _detected(self) -> PromptFormat:
        if self.path.suffix.lower() in JSONL_SUFFIXES:
            return PromptFormat.JSONL
        first = next(self.lines(), None)
        if first is None or first.data is None:
            return PromptFormat.PLAIN
        try:
            return PromptFormat.JSONL if isinstance(json.loads(first.data), dict) else PromptFormat.PLAIN
        except (ValueError, RecursionError):
            return PromptFormat.PLAIN

    def _skip_rest(self) -> None:
        while (more := self._file.readline(self.max_line_bytes)) and not more.endswith(b"\n"):
            pass


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _begins_with_system(messages: Any) -> bool:  # noqa: ANN401
    """Not more than asked: what else is wrong with foreign messages is found by their check."""
    if not isinstance(messages, list):
        raise ValueError("messages: must be a list of messages")  # noqa: TRY004  the line's failure, not a bug
    first = messages[0] if messages else None
    return isinstance(first, dict) and first.get("role") == "system"
