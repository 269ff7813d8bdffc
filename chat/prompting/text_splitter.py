"""Cutting texts to sizes counted in tokens: at paragraphs, else lines, sentences, words. Knows no models."""

import re
from collections.abc import Callable

CountTokens = Callable[[str], int]

ELLIPSIS = " …"
# The later of them within the last half of what fits, the better kind of border first.
BORDERS = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"[.!?…。！？]['\")\]”’]*\s"), re.compile(r"\s"))
# Where the search for what fits begins; how dense a text really is, only counting tells.
CHARS_PER_TOKEN = 4


def pieces(text: str, limit: int, count: CountTokens) -> list[str]:
    """The text in parts of at most ``limit`` tokens each, none of it lost but the blanks at the cuts."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, a piece needs at least 1 token")
    found: list[str] = []
    rest = text.strip()
    while rest:
        end = _end_of_piece(rest, limit, count)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return found


def beginning(text: str, limit: int, count: CountTokens) -> str:
    """The text, or as much of its beginning as ``limit`` tokens allow, marked as cut."""
    text = text.strip()
    # No token is less than a byte.
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
        ends = [found.end() for found in border.finditer(text, fitting // 2, fitting)]
        # A shorter beginning has more tokens only in odd cases, but it happens.
        if ends and count(text[: ends[-1]].rstrip()) <= limit:
            return ends[-1]
    return fitting


def _n_fitting(text: str, limit: int, count: CountTokens) -> int:
    """How many characters from the start have at most ``limit`` tokens; at least one, or nothing would go on."""
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
