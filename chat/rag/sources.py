"""A source: a memory or document that may be shown to the model, and later to the user.

Knows the two forms in which memory services describe their hits, and none of how they are asked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

DOCUMENT, MEMORY, SEGMENT = "document", "memory", "transcript_segment"
KINDS = {DOCUMENT, MEMORY, SEGMENT}
MAX_TEXT_CHARS = 200_000
MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class ContextItem:
    """A document that the client wants the model to see."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """``time`` is ISO 8601, ``start_time`` seconds into a recording, ``label`` what the model writes in brackets.

    ``scores`` are the parts of ``score`` by name (vector, text, recency); they are recorded, not sent to clients.
    """

    kind: str
    text: str
    title: str = ""
    speaker: str = ""
    time: str | None = None
    start_time: float | None = None
    emotion: str = ""
    score: float | None = None
    doc_id: str = ""
    label: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def moment(self) -> datetime | None:
        """When it was said or written, or None."""
        return moment_of(self.time or "")

    def as_wire(self) -> dict[str, Any]:
        """As clients see it, but for ``cited``, which the answer decides."""
        times = {"time": self.time} if self.start_time is None else {"time": self.time, "start_time": self.start_time}
        return {
            "label": self.label,
            "kind": self.kind,
            "title": self.title,
            "speaker": self.speaker,
            **times,
            "emotion": self.emotion,
            "score": self.score,
            "text": self.text,
            "doc_id": self.doc_id,
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Source":
        return cls(**{name: wire[name] for name in cls.__dataclass_fields__ if name in wire})


def moment_of(time: str) -> datetime | None:
    """A time without a zone counts as UTC, which is what memory services write."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def source_from_hit(hit: object) -> Source | None:
    """A source of one search result, new form or old; None when it has no text to show."""
    if not isinstance(hit, Mapping):
        return None
    metadata = _mapping(hit.get("metadata"))
    text = _text(hit.get("text") or metadata.get("body"), MAX_TEXT_CHARS)
    if not text:
        return None
    kind = hit.get("type") or hit.get("doc_type")
    if not isinstance(kind, str) or kind not in KINDS:
        kind = SEGMENT if "segment_id" in metadata else MEMORY
    return _described({**metadata, **_named(hit, "speaker", "score", "id", "doc_id")}, kind, text)


def source_from_context(item: ContextItem) -> Source:
    """A source of a document that came with the request."""
    return _described(item.metadata, DOCUMENT, _text(item.text, MAX_TEXT_CHARS))


def _described(facts: Mapping[str, Any], kind: str, text: str) -> Source:
    """A source with all that both origins say about it."""
    doc_ids = (facts.get(name) for name in ("id", "doc_id", "memory_id", "segment_id"))
    return Source(
        kind=kind,
        text=text,
        title=_text(facts.get("title")),
        speaker=_text(facts.get("speaker")),
        time=_time(facts.get("created_at") or facts.get("timestamp") or facts.get("time")),
        start_time=_number(facts.get("start_time")),
        emotion=_text(facts.get("emotion")),
        score=_number(facts.get("score")),
        doc_id=next((text for text in map(_text, doc_ids) if text), ""),
    )


def _named(hit: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: hit[name] for name in names if hit.get(name) is not None}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object, limit: int = MAX_NAME_CHARS) -> str:
    """A usable string of foreign data: no other types, no NUL or lone surrogates (databases refuse both)."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).replace("\0", "").encode("utf-8", "replace").decode().strip()[:limit]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _time(value: object) -> str | None:
    """ISO 8601 of an ISO text or of unix seconds; anything else is no time."""
    try:
        # Smaller numbers are seconds into a recording, which some services also call a timestamp.
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 100_000_000:
            return datetime.fromtimestamp(value, UTC).isoformat()
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
