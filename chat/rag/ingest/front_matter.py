"""Title and date at the beginning of a Markdown file: YAML between ``---``, TOML between ``+++``."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import yaml

from chat.rag.ingest.dates import moment_of

MAX_LINES, MAX_CHARS = 100, 20_000  # YAML of 300,000 characters takes 7 s
MAX_NUMBER_BITS, MAX_BRACKETS = 64, 2
ENDS = {"---": ("---", "..."), "+++": ("+++",)}
TITLES = ("title", "name", "titel", "título", "titre")
DATES = ("date", "created", "created_at", "recorded", "recorded_at", "datum", "fecha", "day")
_FACT = re.compile(r"\A([A-Za-z_]+)\s*:\s*(.+)")


@dataclass(frozen=True)
class FrontMatter:
    """``n_lines`` is the number of lines before the text."""

    title: str = ""
    moment: datetime | None = None
    n_lines: int = 0


def read_front_matter(lines: list[str]) -> FrontMatter:
    """Return what the file says about itself; nothing for a text that merely begins with a rule."""
    mark = lines[0].strip() if lines else ""
    if mark not in ENDS:
        return FrontMatter()
    head = enumerate(lines[1:MAX_LINES], start=1)
    end = next((n for n, content in head if content.strip() in ENDS[mark]), None)
    facts = None if end is None else _facts(mark, lines[1:end])
    if end is None or facts is None:
        return FrontMatter()
    by_name = {str(name).casefold(): value for name, value in facts.items()}
    titles = (_text(by_name.get(name)) for name in TITLES)
    moments = (_moment(by_name.get(name)) for name in DATES)
    return FrontMatter(next(filter(None, titles), ""), next(filter(None, moments), None), end + 1)


def _facts(mark: str, lines: list[str]) -> Mapping[Any, Any] | None:
    """Return the fields, None for a text that has none."""
    text = "\n".join(lines)
    try:
        if len(text) > MAX_CHARS:
            raise ValueError("too long")  # noqa: TRY301
        facts = tomllib.loads(text) if mark == "+++" else yaml.safe_load(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, ValueError, LookupError, AttributeError, RecursionError):
        # Written by hand: a colon in a title is no YAML, and 30 February no date. Values with a tag of YAML, such as
        # "!!bool x", raise what the conversion of their text does.
        matches = (_FACT.fullmatch(content.strip()) for content in lines)
        facts = {match[1]: match[2].partition(" #")[0].strip("\"' ") for match in matches if match}
    if facts is None:
        return {}
    return facts if isinstance(facts, Mapping) else None


def _text(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
        return ""  # in digits it may be longer than Python converts
    return " ".join(str(value).split()) if isinstance(value, str | int | float | date) else ""


def _moment(value: object) -> datetime | None:
    """Return the date of a field, also of a link to the note of a day: ``[[2024-03-05]]``."""
    for _ in range(MAX_BRACKETS):  # a list of YAML may contain itself
        value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, date):
        return moment_of(value.isoformat())
    return moment_of(value.strip(" []")) if isinstance(value, str) else moment_of(value)
