"""A hit in a recording with the lines around it, without which it is often not understood.

Windows of one recording that touch are one source; it speaks for the better of its hits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db.models import Q

from chat.memory.models import Passage, Segment

NEIGHBOURS = 1  # lines before and after a hit
MAX_WINDOW_CHARS = 2_000


@dataclass
class Window:
    """``first`` and ``last`` are positions in the recording, both included."""

    hit: Passage
    first: int
    last: int

    def touches(self, other: "Window") -> bool:
        return self.first <= other.last + 1 and other.first <= self.last + 1


def windows(hits: Sequence[Passage]) -> list[Window | Passage]:
    """In the order of the hits, best first; hits that fall into an earlier window are part of it. Notes stay as they
    are."""
    found: list[Window | Passage] = []
    by_transcript: defaultdict[int, list[Window]] = defaultdict(list)
    for hit in hits:
        if hit.segment is None or hit.transcript_id is None:
            found.append(hit)
            continue
        window = Window(hit, hit.segment.position - NEIGHBOURS, hit.segment.position + NEIGHBOURS)
        others = by_transcript[hit.transcript_id]
        touched = next((each for each in others if each.touches(window)), None)
        if touched:
            touched.first, touched.last = min(touched.first, window.first), max(touched.last, window.last)
        else:
            others.append(window)
            found.append(window)
    return found


def lines_of(found: Sequence[Window | Passage]) -> Mapping[int, list[Segment]]:
    """All windows' lines by the id of their hit, in one query."""
    wanted = [each for each in found if isinstance(each, Window)]
    if not wanted:
        return {}
    where = Q(pk__in=[])
    for window in wanted:
        where |= Q(transcript=window.hit.transcript_id, position__range=(window.first, window.last))
    rows: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in Segment.objects.filter(where).order_by("position"):
        rows[segment.transcript_id].append(segment)
    return {
        window.hit.pk: [s for s in rows[window.hit.transcript_id or 0] if window.first <= s.position <= window.last]
        for window in wanted
    }


def text_of(hit: Passage, lines: Sequence[Segment]) -> str:
    """The lines, with their speakers' names where there are several; of very long ones the hit alone."""
    if sum(len(line.text) for line in lines) > MAX_WINDOW_CHARS:
        return hit.text
    if len({line.speaker for line in lines}) == 1:
        return "\n".join(line.text for line in lines)
    return "\n".join(f"{line.speaker or 'unknown'}: {line.text}" for line in lines)
