"""Who says a line, when the line itself says so: ``Sarah: text`` and ``[Sarah] text``.

A colon is not always a label ("Note: bring cake"); a name counts when it comes back, or when most lines have one.
"""

import re
from collections import Counter
from collections.abc import Iterable

MAX_NAME_WORDS = 5
PARTICLES = {"al", "bin", "da", "de", "den", "der", "di", "du", "la", "le", "van", "von", "y"}
_LABEL = re.compile(r"\s*(?:[-\u2013>]+\s*)?(?:\[([^\[\]\n]{1,60})\]:?|([^:\uff1a\n]{1,60})[:\uff1a])\s+(?=\S)")


class SpeakerLabels:
    """The speakers' names in the lines of one file."""

    def __init__(self, lines: Iterable[str]) -> None:
        names = [_name(line) for line in lines]
        counts = Counter(name for name in names if name)
        # In a file of a single line, that line's label is all there is to go by.
        self.are_rule = 2 * counts.total() >= len(names) > 0
        self.names = {name for name, n in counts.items() if n > 1 or self.are_rule}

    def utterances(self, text: str) -> list[tuple[str, str]]:
        """(speaker, text) of each utterance; lines without a label go on with what was being said."""
        found: list[tuple[str, list[str]]] = []
        for line in text.split("\n"):
            name = _name(line)
            if name in self.names:
                found.append((name, [_LABEL.sub("", line, count=1)]))
            elif found:
                found[-1][1].append(line)
            else:
                found.append(("", [line]))
        return [(name, " ".join(" ".join(lines).split())) for name, lines in found]


def _name(line: str) -> str:
    """The name that the line begins with, or an empty text."""
    found = _LABEL.match(line)
    if found is None:
        return ""
    name = " ".join((found[1] or found[2]).split())
    return name if _looks_like_a_name(name) else ""


def _looks_like_a_name(name: str) -> bool:
    words = name.split()
    if not 1 <= len(words) <= MAX_NAME_WORDS or not name[0].isalpha():
        return False
    if re.fullmatch(r"(?i)speaker[ _-]?\w{1,3}", name):
        return True
    # Scripts without capitals have no lower case either.
    return all(not word[0].islower() or word in PARTICLES for word in words) and not words[-1][0].islower()
