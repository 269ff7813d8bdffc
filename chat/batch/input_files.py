"""Opens the input of a batch as a seekable file, and detects its format."""

import json
import sys
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from chat.batch.errors import InputUnreadable

STDIN = Path("-")
JSONL_SUFFIXES = {".jsonl", ".ndjson"}
# A JSON document is parsed as a whole; JSON Lines have no limit.
MAX_JSON_BYTES = 256 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COPY_BYTES = 1 << 20


class PromptFormat(StrEnum):
    """Formats of the input, by the value of ``--format``."""

    AUTO = "auto"  # by the file's name and content
    JSONL = "jsonl"  # one JSON object per line
    JSON = "json"  # an array of objects and texts, or one object, over any number of lines
    PLAIN = "plain"  # one prompt per line


def open_input(path: Path) -> BinaryIO:
    """Open ``path``, or standard input for ``-``. Raises InputUnreadable.

    The input is read twice (check and run), so a pipe is copied to a temporary file first.
    """
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise InputUnreadable("standard input is closed")
            return _seekable(sys.stdin.buffer)
        return _seekable(path.open("rb"))
    except OSError as error:
        raise InputUnreadable(f"cannot read {path}: {error.strerror or error}") from error


def _seekable(file: BinaryIO) -> BinaryIO:
    if file.seekable():
        file.seek(0)
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    while data := file.read(COPY_BYTES):
        copy.write(data)
    copy.seek(0)
    return copy


def detect_format(path: Path, first_line: bytes | None, file: BinaryIO) -> PromptFormat:
    """Return the format of an input whose first line that is not blank is ``first_line``. Raises InputUnreadable."""
    if first_line is None:
        return PromptFormat.PLAIN
    start = first_line.removeprefix(BYTE_ORDER_MARK).strip()
    is_jsonl = path.suffix.lower() in JSONL_SUFFIXES
    first_value: object = None
    with suppress(ValueError, RecursionError):
        first_value = json.loads(start)
    if isinstance(first_value, dict) and not (path.suffix.lower() == ".json" and _is_single_value(file)):
        return PromptFormat.JSONL
    # Only text that begins like a document is parsed as a whole: a plain prompt may begin with a bracket, too.
    if start[:1] in (b"[", b"{"):
        try:
            load_entries(path, file)
        except InputUnreadable:
            if path.suffix.lower() == ".json" or (start in (b"[", b"{") and not is_jsonl):
                raise
        else:
            return PromptFormat.JSON
    return PromptFormat.JSONL if is_jsonl else PromptFormat.PLAIN


def load_entries(path: Path, file: BinaryIO) -> list[Any]:
    """Return the elements of a JSON array, or the only object. Raises InputUnreadable."""
    file.seek(0)
    data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise InputUnreadable(
            f"{path} is a JSON document of more than {MAX_JSON_BYTES:,} bytes; use JSON Lines instead"
        )
    try:
        document = json.loads(data.removeprefix(BYTE_ORDER_MARK), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputUnreadable(
            f"{path} begins like JSON but is not: {error}. Use --format plain to send its lines as they are."
        ) from error
    if isinstance(document, dict):
        return [document]
    if not isinstance(document, list) or not all(isinstance(entry, dict | str) for entry in document):
        raise InputUnreadable(f"{path} is JSON, but neither an object nor an array of objects and texts")
    return document


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_single_value(file: BinaryIO) -> bool:
    file.seek(0)
    lines = (line for line in file if line.strip())
    return next(lines, None) is not None and next(lines, None) is None
