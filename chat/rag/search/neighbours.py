"""Context windows: a hit in a recording with the lines around it.

Adjacent windows of one recording are merged into one source, which takes the rank of its best hit.
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
    """Lines ``first`` to ``last`` (both included) of a recording, with the hits among them, best first."""

    hits: list[Passage]
    first: int
    last: int

    def merge(self, other: "Window") -> bool:
        """Merge an adjacent window; refuse when the hits alone exceed the limit, since some would be cut off."""
        is_adjacent = self.first <= other.last + 1 and other.first <= self.last + 1
        if not is_adjacent or sum(len(hit.text) for hit in self.hits + other.hits) > MAX_WINDOW_CHARS:
            return False
        self.hits += other.hits
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        return True

    def holds(self, line: Segment) -> bool:
        return self.first <= line.position <= self.last


def windows(hits: Sequence[Passage]) -> list[Window | Passage]:
    """Return one window per group of adjacent hits, best first; notes stay single passages."""
    results: list[Window | Passage] = []
    by_transcript: defaultdict[int, list[Window]] = defaultdict(list)
    for hit in hits:
        if hit.segment is None or hit.transcript_id is None:
            results.append(hit)
            continue
        window = Window([hit], hit.segment.position - NEIGHBOURS, hit.segment.position + NEIGHBOURS)
        earlier = by_transcript[hit.transcript_id]
        if not any(other.merge(window) for other in earlier):
            earlier.append(window)
            results.append(window)
    return results


def lines_of(results: Sequence[Window | Passage]) -> Mapping[int, list[Segment]]:
    """Load the lines of all windows with one query, by the id of the best hit."""
    windowed = [result for result in results if isinstance(result, Window)]
    if not windowed:
        return {}
    where = Q(pk__in=[])
    for window in windowed:
        where |= Q(transcript=window.hits[0].transcript_id, position__range=(window.first, window.last))
    rows: defaultdict[int, list[Segment]] = defaultdict(list)
    for segment in Segment.objects.filter(where).order_by("position"):
        rows[segment.transcript_id].append(segment)
    return {
        window.hits[0].pk: [line for line in rows[window.hits[0].transcript_id or 0] if window.holds(line)]
        for window in windowed
    }


def text_of(window: Window, lines: Sequence[Segment]) -> str:
    """Join the lines, prefixed by speaker names where there are several; use the hits alone when too long."""
    if sum(len(line.text) for line in lines) <= MAX_WINDOW_CHARS:
        spoken = [(line.speaker, line.text) for line in lines]
    else:
        # In the order of the recording: passages of a line that was changed are newer than those after it.
        hits = sorted(window.hits, key=lambda hit: (hit.segment.position if hit.segment else 0, hit.pk))
        spoken = [(hit.segment.speaker if hit.segment else "", hit.text) for hit in hits]
    # A line break in a text, or a colon in a name, could forge a line of another speaker.
    texts = [" ".join(text.split()) for _, text in spoken]
    if len({speaker for speaker, _ in spoken}) == 1:
        return "\n".join(texts)
    names = [(speaker or "unknown").replace(":", "") for speaker, _ in spoken]
    return "\n".join(f"{name}: {text}" if name else text for name, text in zip(names, texts, strict=True))
