"""Detects the format of a file, by content where that is unambiguous and else by name, and parses it."""

import codecs
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from chat.rag.ingest import captions, json_files, other_captions, prose, tables
from chat.rag.ingest.parsed_file import FileUnreadable, NothingToImport, ParsedFile

_CAPTION_TIMES = re.compile(r"(?m)^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->\s*\d")
_TIMED_TEXT = re.compile(r"(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:\w+:)?tt[\s>]", re.DOTALL)
SNIFFED_CHARS = 4096
REPLACEMENT = "\ufffd"
# Text with more damage is in another encoding, unless it has many whole characters that are UTF-8 alone.
UNDAMAGED_PER_DAMAGED, WHOLE_PER_DAMAGED = 100, 10
# The marks of UTF-32 begin with those of UTF-16.
MARKS = [
    (codecs.BOM_UTF32_LE, ("UTF-32", "utf-32")),
    (codecs.BOM_UTF32_BE, ("UTF-32", "utf-32")),
    (codecs.BOM_UTF16_LE, ("UTF-16", "utf-16")),
    (codecs.BOM_UTF16_BE, ("UTF-16", "utf-16")),
]


class FileFormat(StrEnum):
    """Formats of the importer, by the value of ``--format``."""

    JSONL = "jsonl"  # one memory or segment per line
    JSON = "json"  # Whisper, WhisperX, or a list of memories
    SRT = "srt"
    VTT = "vtt"
    MARKDOWN = "markdown"
    TEXT = "text"
    SBV = "sbv"
    LRC = "lrc"
    TTML = "ttml"
    ASS = "ass"
    TABLE = "table"
    RTTM = "rttm"  # who spoke when; recognised to be refused by name


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
    ".sbv": FileFormat.SBV,
    ".lrc": FileFormat.LRC,
    ".ttml": FileFormat.TTML,
    ".dfxp": FileFormat.TTML,
    ".ass": FileFormat.ASS,
    ".ssa": FileFormat.ASS,
    ".csv": FileFormat.TABLE,
    ".tsv": FileFormat.TABLE,
    ".rttm": FileFormat.RTTM,
}
# In a folder they lie beside the transcripts.
SUFFIXES = BY_SUFFIX.keys() - {".rttm"}


def _refuse_rttm(text: str) -> ParsedFile:
    raise FileUnreadable("is RTTM, which has speakers and times but no text")


PARSERS: dict[FileFormat, Callable[[str], ParsedFile]] = {
    FileFormat.JSONL: json_files.parse_lines,
    FileFormat.JSON: json_files.parse_object,
    FileFormat.SRT: captions.parse,
    FileFormat.VTT: captions.parse,
    FileFormat.MARKDOWN: prose.parse_markdown,
    FileFormat.TEXT: prose.parse_text,
    FileFormat.SBV: captions.parse_sbv,
    FileFormat.LRC: other_captions.parse_lrc,
    FileFormat.TTML: other_captions.parse_ttml,
    FileFormat.ASS: other_captions.parse_ass,
    FileFormat.TABLE: tables.parse_table,
    FileFormat.RTTM: _refuse_rttm,
}
MARKUP = re.compile(r"<(?:!doctype\s+html|html|\?xml)|\{\\rtf", re.IGNORECASE)


def read(path: Path, encoding: str = "") -> tuple[str, int]:
    """Return the file's text, and how many of its characters were damaged. Raises FileUnreadable.

    Without ``encoding`` a byte order mark counts, else it is UTF-8, of which a few bytes may be damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileUnreadable(f"cannot be read: {error.strerror or error}") from error
    # Editors of Windows write UTF-16 and UTF-32 with a byte order mark.
    marked = (names for mark, names in MARKS if data.startswith(mark))
    name, codec = (encoding, encoding) if encoding else next(marked, ("UTF-8", "utf-8-sig"))
    try:
        text, n_replaced = data.decode(codec), 0
    except UnicodeDecodeError as error:
        text = data.decode(codec, "replace")
        n_replaced = text.count(REPLACEMENT)
        n_whole = sum(not character.isascii() for character in text) - n_replaced
        if n_replaced * UNDAMAGED_PER_DAMAGED > len(text) and n_replaced * WHOLE_PER_DAMAGED > n_whole:
            raise FileUnreadable(f"is not {name} (byte {error.start}); --encoding may name another one") from error
    if "\0" in text:
        raise FileUnreadable("is not a text file")
    return text, n_replaced


def parse(text: str, path: Path, forced: FileFormat | None = None) -> ParsedFile:
    """Parse ``text``. Raises FileUnreadable, also when it holds nothing to import."""
    if not text.strip("\ufeff \t\r\n"):
        raise NothingToImport("holds nothing to import")
    form = forced or detect(text, path)
    if form in (FileFormat.TEXT, FileFormat.JSON) and (markup := MARKUP.match(text.lstrip("\ufeff \t\r\n"))):
        raise FileUnreadable(f"is markup ({markup[0]}), of which no text is read")
    parsed = PARSERS[form](text)
    if not (parsed.transcripts or parsed.notes or parsed.problems):
        raise NothingToImport("holds nothing to import")
    return parsed


def detect(text: str, path: Path) -> FileFormat:
    """Return the format of ``text``; ``path`` decides where the content is ambiguous."""
    named = BY_SUFFIX.get(path.suffix.lower())
    beginning = text[:SNIFFED_CHARS].lstrip("\ufeff \t\r\n")
    if beginning.startswith("WEBVTT"):
        return FileFormat.VTT
    if named in (FileFormat.TEXT, None) and _TIMED_TEXT.match(beginning):
        return FileFormat.TTML
    if named in (FileFormat.JSON, FileFormat.JSONL) or (named is None and beginning.startswith(("{", "["))):
        # One object per line is JSONL whatever the suffix; an object over several lines is JSON.
        first, *rest = [line.strip() for line in text.split("\n", 64) if line.strip()] or [""]
        if first in ("{", "["):
            return FileFormat.JSON
        is_row_by_row = first.startswith("{") and first.endswith("}") and bool(rest)
        return FileFormat.JSONL if named is FileFormat.JSONL or is_row_by_row else FileFormat.JSON
    if named in (FileFormat.TEXT, None) and _CAPTION_TIMES.search(beginning):
        return FileFormat.SRT
    return named or FileFormat.TEXT
