"""A hit in a recording with the lines around it, without which it is often not understood.

Windows of one recording that touch are one source; it speaks for the better of its hits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Q

from chat.rag.models import Passage, Segment

NEIGHBOURS = 1  # lines before and after a hit
MAX_WINDOW_CHARS = 2_000


@dataclass
class Window:
    """``first`` and ``last`` are positions in the recording, both included; ``hits`` lie within, the best first."""

    hits: list[Passage]
    first: int
    last: int

    def takes_in(self, other: "Window") -> bool:
        """Whether the other one, which touches it, is part of it now. Not when the hits alone would be too much: those
        that did not fit would be lost."""
        touches = self.first <= other.last + 1 and other.first <= self.last + 1
        if not touches or sum(len(hit.text) for hit in self.hits + other.hits) > MAX_WINDOW_CHARS:
            return False
        self.hits += other.hits
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        return True

    def holds(self, line: Segment) -> bool:
        return self.first <= line.position <= self.last


def windows(hits: Sequence[Passage]) -> list[Window | Passage]:
    """In the order of the hits, best first; hits that fall into an earlier window are part of it. Notes stay as they
    are."""
    found: list[Window | Passage] = []
    by_transcript: defaultdict[int, list[Window]] = defaultdict(list)
    for hit in hits:
        if hit.segment is None or hit.transcript_id is None:
            found.append(hit)
            continue
        window = Window([hit], hit.segment.position - NEIGHBOURS, hit.segment.position + NEIGHBOURS)
        others = by_transcript[hit.transcript_id]
        if not any(each.takes_in(window) for each in others):
            others.append(window)
            found.append(window)
    return found


def lines_of(found: Sequence[Window | Passage]) -> Mapping[int, list[Segment]]:
    """All windows' lines by the id of their best hit, in one query."""
    wanted = [each for each in found if isinstance(each, Window)]
    if not wanted:
        return {}
    where = Q(pk__in=[])
    for window in wanted:
        where |= Q(transcript=window.hits[0].transcript_id, position__range=(window.first, window.last))
    rows: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in Segment.objects.filter(where).order_by("position"):
        rows[segment.transcript_id].append(segment)
    return {
        window.hits[0].pk: [line for line in rows[window.hits[0].transcript_id or 0] if window.holds(line)]
        for window in wanted
    }


def text_of(window: Window, lines: Sequence[Segment]) -> str:
    """The lines, with their speakers' names where there are several; where they are very long the hits alone."""
    if sum(len(line.text) for line in lines) <= MAX_WINDOW_CHARS:
        said = [(line.speaker, line.text) for line in lines]
    else:
        hits = sorted(window.hits, key=lambda hit: hit.pk)  # as they lie in the recording
        said = [(hit.segment.speaker if hit.segment else "", hit.text) for hit in hits]
    has_one_speaker = len({speaker for speaker, _ in said}) == 1
    return "\n".join(_on_one_line("" if has_one_speaker else speaker or "unknown", text) for speaker, text in said)


def _on_one_line(speaker: str, text: str) -> str:
    # A line break in what was said, or a colon in a name, would let one speaker put words into another's mouth.
    name = f"{speaker.replace(':', '')}: " if speaker else ""
    return name + " ".join(text.split())
