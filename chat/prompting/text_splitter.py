"""Split texts into pieces of a size in tokens: at paragraphs, else lines, sentences, words. Knows no models."""

import re
from collections.abc import Callable, Iterator

CountTokens = Callable[[str], int]

ELLIPSIS = " …"
# By preference; the last one within the second half of the text that fits is used.
BORDERS = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"[.!?…。！？]['\")\]”’]*\s"), re.compile(r"\s"))
# First guess of the search for the text that fits; then tokens are counted.
CHARS_PER_TOKEN = 4
# A text that leaves less than this part of the limit free is long enough: each count encodes the whole text again.
SLACK_SHARE = 0.01

_VISIBLE = re.compile(r"\S")


def pieces(text: str, limit: int, count: CountTokens) -> list[str]:
    """Split the text into pieces of at most ``limit`` tokens; only white space at the cuts is lost."""
    return list(iter_pieces(text, limit, count))


def iter_pieces(text: str, limit: int, count: CountTokens) -> Iterator[str]:
    """Yield what ``pieces`` returns: a caller that needs the first one alone has no others counted."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, but a piece needs at least 1 token")
    for start, end in spans(text, limit, count):
        yield text[start:end].rstrip()


def spans(text: str, limit: int, count: CountTokens) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each piece, without the white space before it."""
    start = _next_visible(text, 0)
    while start < len(text):
        end = _end_of_piece(text, start, limit, count)
        yield start, end
        start = _next_visible(text, end)


def beginning(text: str, limit: int, count: CountTokens) -> str:
    """Return the text, or as much of its beginning as ``limit`` tokens allow, with an ellipsis."""
    text = text.strip()
    # A token has at least one byte.
    if len(text) <= limit and len(text.encode("utf-8", "surrogatepass")) <= limit:
        return text
    room = limit - count(ELLIPSIS)
    if room < 1:
        return ""
    end = _end_of_piece(text, 0, room, count)
    return text if end == len(text) else text[:end].rstrip() + ELLIPSIS


def _next_visible(text: str, position: int) -> int:
    visible = _VISIBLE.search(text, position)
    return visible.start() if visible else len(text)


def _end_of_piece(text: str, start: int, limit: int, count: CountTokens) -> int:
    end = start + _n_fitting(text, start, limit, count)
    if end == len(text):
        return end
    for border in BORDERS:
        ends = [match.end() for match in border.finditer(text, (start + end) // 2, end)]
        # In rare cases a shorter beginning has more tokens.
        if ends and count(text[start : ends[-1]].rstrip()) <= limit:
            return ends[-1]
    return end


def _n_fitting(text: str, start: int, limit: int, count: CountTokens) -> int:
    """Count the characters from ``start`` that have at most ``limit`` tokens, up to SLACK_SHARE of it; at least one,
    so that splitting ends."""
    rest, slack = len(text) - start, int(limit * SLACK_SHARE)
    fits, too_many = 1, rest + 1
    guess = min(rest, limit * CHARS_PER_TOKEN)
    is_proportional = True
    while too_many - fits > 1:
        guess = min(max(guess, fits + 1), too_many - 1)
        n_tokens = count(text[start : start + guess])
        if n_tokens <= limit:
            fits = guess
            if slack and limit - n_tokens <= slack:
                return fits
        else:
            too_many = guess
        # In proportion to the tokens counted, and every second time in the middle, where a text is uneven.
        proportional = int(guess * (limit - slack / 2) / max(1, n_tokens))
        guess = proportional if is_proportional else (fits + too_many) // 2
        is_proportional = not is_proportional or too_many > rest
    return fits
