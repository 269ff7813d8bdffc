"""Normal forms of texts in time linear in their length: composed (NFC), folded for searches, and digests of texts.

``unicodedata.normalize`` sorts the combining characters of a run by insertion: a run of 24,000 takes 0.4 s, one of a
million takes an hour. Long runs are sorted here first, in the order that Unicode prescribes, which the sort then only
confirms.
"""

import hashlib
import re
import unicodedata
from functools import cache
from typing import Literal

# The Stream-Safe Text Format of Unicode allows 30; ordinary words have up to 5.
LONGEST_RUN_CHARS = 30
# The planes above hold ideographs and private characters.
END_OF_SCRIPTS = 0x20000
INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # categories: controls, formats such as U+200B, spaces


def composed(text: str) -> str:
    """Return the text in the form NFC."""
    return _normalized("NFC", text)


def folded(text: str) -> str:
    """Return the form in which searches compare texts: equal for upper and lower case (``ß`` and ``ss`` too), for
    composed and decomposed characters, and for full and half width."""
    if text.isascii():
        return text.lower()
    # As Unicode defines a compatibility caseless match (chapter 3.13, D146).
    return _normalized("NFKC", _normalized("NFKD", text).casefold())


def compared(text: str) -> str:
    """Return the form in which sent messages are compared with stored ones: stripped, with LF as line break, NFC."""
    return composed(text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def is_visible(text: str) -> bool:
    """Return whether the text has any character but spaces, control and format characters."""
    return any(unicodedata.category(character) not in INVISIBLE for character in text)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def answer_digest(text: str) -> str:
    """Return the digest by which an answer is looked up; empty for a blank one."""
    text = compared(text)
    return digest(text) if text else ""


def _normalized(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    if text.isascii():
        return text
    decomposition: Literal["NFKD", "NFD"] = "NFD" if form == "NFC" else "NFKD"

    def in_canonical_order(run: "re.Match[str]") -> str:
        marks = "".join(unicodedata.normalize(decomposition, mark) for mark in run[0])
        return "".join(sorted(marks, key=unicodedata.combining))  # stable, as the order has to be

    return unicodedata.normalize(form, _long_runs().sub(in_canonical_order, text))


@cache
def _long_runs() -> "re.Pattern[str]":
    """Compile the pattern of a long run; takes 15 ms."""
    # A few characters have no combining class and are decomposed to characters that have one.
    combining = [
        mark
        for mark in map(chr, range(0x300, END_OF_SCRIPTS))
        if unicodedata.combining(unicodedata.normalize("NFKD", mark)[0])
    ]
    return re.compile(f"[{''.join(map(re.escape, combining))}]{{{LONGEST_RUN_CHARS + 1},}}")
