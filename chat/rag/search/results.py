"""Builds sources from hits: loads the passages, drops duplicates, adds the lines around them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chat.rag.models import Passage
from chat.rag.search.neighbours import Window, lines_of, text_of, windows
from chat.rag.search.ordering import DuplicateFilter
from chat.rag.sources import Source


@dataclass(frozen=True)
class Hit:
    """A passage with its score and the parts of it, by name; a search that did not return it has None."""

    passage_id: int
    score: float
    parts: Mapping[str, float | None]

    def source(self, row: Passage, text: str) -> Source:
        """Return the passage ``row`` of this hit as a source with ``text``."""
        segment, holder = row.segment, row.note or row.transcript
        return Source(
            kind=row.kind,
            text=text,
            title=holder.title if holder else "",
            speaker=segment.speaker if segment else "",
            time=row.said_at.isoformat(),
            start_time=segment.start_secs if segment else None,
            emotion=segment.emotion if segment else "",
            score=round(self.score, 6),
            doc_id=str(row.segment_id or row.note_id),
            scores=self.parts,
        )


def sources(hits: Sequence[Hit], top_k: int, *, with_neighbours: bool) -> list[Source]:
    """Return sources of the first ``top_k`` distinct hits, best first; fewer when hits share a window."""
    by_id = {hit.passage_id: hit for hit in hits}
    chosen = list(_distinct(hits, top_k))
    results: Sequence[Window | Passage] = windows(chosen) if with_neighbours else chosen
    lines = lines_of(results)
    built = []
    for result in results:
        row = result.hits[0] if isinstance(result, Window) else result
        text = text_of(result, lines[row.pk]) if isinstance(result, Window) and lines[row.pk] else row.text
        built.append(by_id[row.pk].source(row, text))
    return built


def _distinct(hits: Sequence[Hit], top_k: int) -> Iterator[Passage]:
    """Load passages in groups until ``top_k`` distinct ones were yielded."""
    duplicates = DuplicateFilter()
    n_yielded = 0
    size = 2 * top_k
    for start in range(0, len(hits), size):
        ids = [hit.passage_id for hit in hits[start : start + size]]
        rows = Passage.objects.filter(pk__in=ids).select_related("segment", "transcript", "note")
        by_id = {row.pk: row for row in rows.defer("embedding", "transcript__full_text", "note__body")}
        for row in (by_id[pk] for pk in ids if pk in by_id):  # a missing one was deleted meanwhile
            if duplicates.is_new(row.speaker, row.text):
                yield row
                n_yielded += 1
                if n_yielded == top_k:
                    return
