"""Split texts into pieces of a size in tokens: at paragraphs, else lines, sentences, words. Knows no models."""

import re
from collections.abc import Callable

CountTokens = Callable[[str], int]

ELLIPSIS = " …"
# By preference; the last one within the second half of the text that fits is used.
BORDERS = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"[.!?…。！？]['\")\]”’]*\s"), re.compile(r"\s"))
# First guess of the search for the text that fits; then tokens are counted.
CHARS_PER_TOKEN = 4


def pieces(text: str, limit: int, count: CountTokens) -> list[str]:
    """Split the text into pieces of at most ``limit`` tokens; only white space at the cuts is lost."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, but a piece needs at least 1 token")
    parts: list[str] = []
    rest = text.strip()
    while rest:
        end = _end_of_piece(rest, limit, count)
        parts.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return parts


def beginning(text: str, limit: int, count: CountTokens) -> str:
    """Return the text, or as much of its beginning as ``limit`` tokens allow, with an ellipsis."""
    text = text.strip()
    # A token has at least one byte.
    if len(text.encode("utf-8", "surrogatepass")) <= limit:
        return text
    room = limit - count(ELLIPSIS)
    if room < 1:
        return ""
    end = _end_of_piece(text, room, count)
    return text if end == len(text) else text[:end].rstrip() + ELLIPSIS


def _end_of_piece(text: str, limit: int, count: CountTokens) -> int:
    fitting = _n_fitting(text, limit, count)
    if fitting == len(text):
        return fitting
    for border in BORDERS:
        ends = [match.end() for match in border.finditer(text, fitting // 2, fitting)]
        # In rare cases a shorter beginning has more tokens.
        if ends and count(text[: ends[-1]].rstrip()) <= limit:
            return ends[-1]
    return fitting


def _n_fitting(text: str, limit: int, count: CountTokens) -> int:
    """Count the characters from the start that have at most ``limit`` tokens; at least one, so that splitting ends."""
    fits, too_many = 1, min(len(text), limit * CHARS_PER_TOKEN) + 1
    while too_many <= len(text) and count(text[:too_many]) <= limit:
        fits, too_many = too_many, min(len(text), too_many * 2) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if count(text[:middle]) <= limit:
            fits = middle
        else:
            too_many = middle
    return fits
