"""Sources: retrieved memories and documents of the request, shown to the model and listed for the user.

Reads both forms in which RAG services describe a hit; does no retrieval.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chat.local_time import moment_text

DOCUMENT, MEMORY, SEGMENT = "document", "memory", "transcript_segment"
KINDS = {DOCUMENT, MEMORY, SEGMENT}
MAX_TEXT_CHARS = 200_000
MAX_NAME_CHARS = 200


@dataclass(frozen=True)
class ContextItem:
    """A document that the client sent with the request."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """``time`` is ISO 8601, ``start_time`` seconds into a recording, ``label`` the number that a citation names.

    ``scores`` are the parts of ``score`` (vector, text, recency); they are stored, not sent to clients.
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
        """Time at which it was said or written, or None."""
        return parse_time(self.time or "")

    @property
    def time_text(self) -> str:
        """The moment, and the place in its recording, for people and the model; empty if neither is known."""
        stamp = moment_text(self.moment) if self.moment else ""
        if self.start_time is None:
            return stamp
        minutes, seconds = divmod(max(0, int(self.start_time)), 60)
        return f"{stamp} at {minutes}:{seconds:02}".strip()

    @property
    def age_key(self) -> tuple[bool, datetime, float]:
        """Sorts documents before memories, and those from the oldest to the newest."""
        if self.kind == DOCUMENT:
            return False, datetime.min.replace(tzinfo=UTC), 0.0  # the sort is stable: as sent
        return True, self.moment or datetime.min.replace(tzinfo=UTC), self.start_time or 0.0

    def as_wire(self) -> dict[str, Any]:
        """Return the wire form without ``cited``, which depends on the answer."""
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


def parse_time(time: str) -> datetime | None:
    """Parse ISO 8601; a time without a zone is UTC, as RAG services write it. None when it is no time."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def source_from_hit(hit: object) -> Source | None:
    """Build a source from one search result, in the new or the old form; None when it has no text."""
    if not isinstance(hit, Mapping):
        return None
    nested = hit.get("metadata")
    metadata = nested if isinstance(nested, Mapping) else {}
    text = _text(hit.get("text") or metadata.get("body"), MAX_TEXT_CHARS)
    if not text:
        return None
    kind = hit.get("type") or hit.get("doc_type")
    if not isinstance(kind, str) or kind not in KINDS:
        kind = SEGMENT if "segment_id" in metadata else MEMORY
    return _described({**metadata, **_named(hit, "speaker", "score", "id", "doc_id")}, kind, text)


def source_from_context(item: ContextItem) -> Source:
    """Build a source from a document of the request."""
    return _described(item.metadata, DOCUMENT, _text(item.text, MAX_TEXT_CHARS))


def _described(facts: Mapping[str, Any], kind: str, text: str) -> Source:
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


def _text(value: object, limit: int = MAX_NAME_CHARS) -> str:
    """Return foreign data as a string, "" for other types; without NUL and lone surrogates, which databases refuse."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).replace("\0", "").encode("utf-8", "replace").decode().strip()[:limit]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _time(value: object) -> str | None:
    """Return ISO 8601 for ISO 8601 text or unix seconds, None for anything else."""
    try:
        # Smaller numbers are offsets into a recording, which some services also call a timestamp.
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 100_000_000:
            return datetime.fromtimestamp(value, UTC).isoformat()
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
