"""A stored retrieval as text for templates: query, outcome and sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from chat.admin.common.formatting import duration_text
from chat.local_time import moment_text
from chat.models import Retrieval
from chat.rag.retrieval.citations import citations_of
from chat.rag.sources import parse_time

# Parts of a score, as people read them.
SCORE_PARTS = {"vector": "meaning", "text": "words", "hints": "speaker, time or emotion", "recency": "recency"}


@dataclass(frozen=True)
class SourceLine:
    """A source shown to the model, as text; ``cited``: the answer names its label."""

    label: str
    kind: str
    title: str
    speaker: str
    time: str
    emotion: str
    score: str
    text: str
    cited: bool
    parts: str = ""  # of the score
    verdict: str = ""  # of the relevance threshold


@dataclass(frozen=True)
class RetrievalView:
    """A retrieval as text; ``not_shown`` are hits that did not fit into the prompt, ``rejected`` were no hits."""

    query: str
    filters: str
    understood: str
    n_hits: int
    latency_ms: float
    error: str
    note: str
    sources: list[SourceLine]
    not_shown: list[SourceLine]
    rejected: list[SourceLine]

    @property
    def latency(self) -> str:
        return duration_text(self.latency_ms)

    @property
    def n_cited(self) -> int:
        return sum(source.cited for source in self.sources)


def retrieval_view(retrieval: Retrieval) -> RetrievalView:
    cited = citations_of(retrieval.message)
    parts = {str(hit.get("label") or ""): hit.get("scores") for hit in retrieval.hits}
    unlabelled = [(hit, source_line(hit, set(), hit.get("scores"))) for hit in retrieval.hits if not hit.get("label")]
    return RetrievalView(
        query=retrieval.query,
        filters=named_values(retrieval.filters),
        understood=named_values(retrieval.understood),
        n_hits=retrieval.n_hits,
        latency_ms=retrieval.latency_ms,
        error=retrieval.error,
        note=retrieval.note,
        sources=[source_line(source, cited, parts.get(str(source.get("label")))) for source in retrieval.sources],
        not_shown=[line for hit, line in unlabelled if not hit.get("rejected")],
        rejected=[line for hit, line in unlabelled if hit.get("rejected")],
    )


def named_values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(values.items())  # PostgreSQL keeps no order
        if value not in (None, [], "")
    )


def source_line(source: Mapping[str, Any], cited: set[str], scores: object = None) -> SourceLine:
    """Build the view of a source in wire form, of which any field may be missing."""
    label = str(source.get("label") or "")
    score = source.get("score")
    by_name = scores if isinstance(scores, Mapping) else {}
    parts = ((noun, by_name.get(name)) for name, noun in SCORE_PARTS.items())
    return SourceLine(
        label=label,
        kind=str(source.get("kind") or "").replace("_", " "),
        title=str(source.get("title") or ""),
        speaker=str(source.get("speaker") or ""),
        time=source_time(source),
        emotion=str(source.get("emotion") or ""),
        score=f"{score:.2f}" if isinstance(score, int | float) else "",
        text=str(source.get("text") or ""),
        cited=label in cited,
        parts=", ".join(f"{noun} {value:.2f}" for noun, value in parts if isinstance(value, int | float)),
        verdict=_verdict(by_name.get("evidence"), by_name.get("floor"), is_rejected=bool(source.get("rejected"))),
    )


def _verdict(evidence: object, floor: object, *, is_rejected: bool) -> str:
    """Return what the relevance threshold did, and why; empty for a search that did not record it."""
    if not isinstance(evidence, int | float) or not isinstance(floor, int | float):
        return ""
    if floor == 0.0:
        return "not pointed to by the question" if is_rejected else "pointed to by the question"
    compared = f"evidence {evidence:.2f}, threshold {floor:.2f}"
    if is_rejected:
        return f"below the threshold: {compared}"
    if evidence >= floor:
        return f"above the threshold: {compared}"
    return f"has the words or a name of the question; {compared}"


def source_time(source: Mapping[str, Any]) -> str:
    """Return the time of a source: a date when one is known, else the offset in the recording."""
    text = source.get("time")
    if isinstance(text, str) and text:
        moment = parse_time(text)
        return moment_text(moment) if moment else text
    start = source.get("start_time")
    if isinstance(start, int | float):
        return f"at {timedelta(seconds=int(start))}"
    return ""
