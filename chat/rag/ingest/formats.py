"""Which format a file has, by its content where that is plain and else by its name, and what is in it."""

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from chat.rag.ingest import captions, json_files, prose
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile

_CAPTION_TIMES = re.compile(r"(?m)^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*\d")
SNIFFED_CHARS = 4096


class FileFormat(StrEnum):
    JSONL = "jsonl"  # a memory or segment a line
    JSON = "json"  # Whisper, WhisperX, or a list of memories
    SRT = "srt"
    VTT = "vtt"
    MARKDOWN = "markdown"
    TEXT = "text"


BY_SUFFIX = {
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".json": FileFormat.JSON,
    ".srt": FileFormat.SRT,
    ".vtt": FileFormat.VTT,
    ".md": FileFormat.MARKDOWN,
    ".markdown": FileFormat.MARKDOWN,
    ".txt": FileFormat.TEXT,
    ".text": FileFormat.TEXT,
}
PARSERS: dict[FileFormat, Callable[[str], ParsedFile]] = {
    FileFormat.JSONL: json_files.parse_lines,
    FileFormat.JSON: json_files.parse_object,
    FileFormat.SRT: captions.parse,
    FileFormat.VTT: captions.parse,
    FileFormat.MARKDOWN: prose.parse_markdown,
    FileFormat.TEXT: prose.parse_text,
}


def read(path: Path) -> str:
    """The file's text. Raises FileUnreadable."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"cannot be read: {error.strerror or error}") from error
    # Windows' editors write UTF-16 with a mark in front.
    name, codec = ("UTF-16", "utf-16") if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("UTF-8", "utf-8-sig")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        raise FileUnreadable(f"is not {name} (byte {error.start})") from error
    if "\0" in text:
        raise FileUnreadable("is no text file")
    return text


def parse(text: str, path: Path, forced: FileFormat | None = None) -> ParsedFile:
    """Raises FileUnreadable, also for a file in which there is nothing."""
    parsed = PARSERS[forced or detected(text, path)](text)
    if not (parsed.transcripts or parsed.notes or parsed.problems):
        raise FileUnreadable("holds nothing to import")
    return parsed


def detected(text: str, path: Path) -> FileFormat:
    named = BY_SUFFIX.get(path.suffix.lower())
    beginning = text[:SNIFFED_CHARS].lstrip("\ufeff \t\r\n")
    if beginning.startswith("WEBVTT"):
        return FileFormat.VTT
    if named in (FileFormat.JSON, FileFormat.JSONL) or (named is None and beginning.startswith(("{", "["))):
        return _kind_of_json(text, named)
    if named in (FileFormat.TEXT, None) and _CAPTION_TIMES.search(beginning):
        return FileFormat.SRT
    return named or FileFormat.TEXT


def _kind_of_json(text: str, named: FileFormat | None) -> FileFormat:
    """Whole objects line by line are JSONL whatever the file is called; one that goes over several lines is not."""
    first, *others = [each.strip() for each in text.split("\n", 64) if each.strip()] or [""]
    if first in ("{", "["):
        return FileFormat.JSON
    is_row_by_row = first.startswith("{") and first.endswith("}") and bool(others)
    return FileFormat.JSONL if named is FileFormat.JSONL or is_row_by_row else FileFormat.JSON
