"""Speaker labels at the beginning of lines: ``Sarah: text`` and ``[Sarah] text``.

A colon is not always a label ("Note: bring cake"): a name counts when it occurs again, or when most lines have one.
"""

import re
from collections import Counter
from collections.abc import Iterable

MAX_NAME_WORDS = 5
PARTICLES = {"al", "bin", "da", "de", "den", "der", "di", "du", "la", "le", "van", "von", "y"}
# What recognisers and note takers write where names are.
NO_NAMES = frozenset(
    """music applause laughter laughs silence inaudible crosstalk noise cheering coughs pause musik applaus gelächter
    beifall música aplausos risas musique applaudissements rires date time attendees participants present subject agenda
    location duration recording transcript note notes topic title summary datum teilnehmer anwesend ort thema fecha
    asistentes lieu participantes présents objet""".split()  # noqa: SIM905  a column of quotes reads worse
)
_LABEL = re.compile(r"\s*(?:[-\u2013>]+\s*)?(?:\[([^\[\]\n]{1,60})\]:?|([^:\uff1a\n]{1,60})[:\uff1a])\s+(?=\S)")


class SpeakerLabels:
    """Names of the speakers in the lines of one file."""

    def __init__(self, lines: Iterable[str]) -> None:
        names = [_name(line) for line in lines]
        counts = Counter(name for name in names if name)
        # Also true for a file of a single line, whose label is the only evidence.
        self.are_rule = 2 * counts.total() >= len(names) > 0
        self.names = {name for name, n in counts.items() if n > 1 or self.are_rule}

    def utterances(self, text: str) -> list[tuple[str, str]]:
        """Return (speaker, text) of each utterance; lines without a label continue the previous one."""
        utterances: list[tuple[str, list[str]]] = []
        for line in text.split("\n"):
            name = _name(line)
            if name in self.names:
                utterances.append((name, [_LABEL.sub("", line, count=1)]))
            elif utterances:
                utterances[-1][1].append(line)
            else:
                utterances.append(("", [line]))
        return [(name, " ".join(" ".join(lines).split())) for name, lines in utterances]


def _name(line: str) -> str:
    """Return the name that labels the line, "" without one."""
    match = _LABEL.match(line)
    if match is None:
        return ""
    words = (match[1] or match[2]).split()
    name = " ".join(words)
    if name.casefold() in NO_NAMES:
        return ""
    if not 1 <= len(words) <= MAX_NAME_WORDS or not name[0].isalpha():
        return ""
    if re.fullmatch(r"(?i)speaker[ _-]?\w{1,3}", name):
        return name
    # Scripts without upper case have no lower case either.
    is_capitalised = all(not word[0].islower() or word in PARTICLES for word in words) and not words[-1][0].islower()
    return name if is_capitalised else ""
