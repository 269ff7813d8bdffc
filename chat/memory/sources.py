"""A source: a memory or document that may be shown to the model, and later to the user.

Knows the two forms in which memory services describe their hits, and none of how they are asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
import math
from typing import Any

from chat.requests import ContextItem

DOCUMENT, MEMORY, SEGMENT = "document", "memory", "transcript_segment"
KINDS = {DOCUMENT, MEMORY, SEGMENT}
MAX_TEXT_CHARS = 200_000
MAX_NAME_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class Source:
    """``time`` is ISO 8601, ``start_time`` seconds into a recording, ``label`` what the model writes in brackets."""

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

    @property
    def moment(self) -> datetime | None:
        """When it was said or written, or None; a time without a zone counts as UTC."""
        try:
            moment = datetime.fromisoformat(self.time or "")
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

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


def from_hit(hit: object) -> Source | None:
    """A source of one search result, new form or old; None when it has no text to show."""
    if not isinstance(hit, Mapping):
        return None
    metadata = _mapping(hit.get("metadata"))
    text = _text(hit.get("text") or metadata.get("body"), MAX_TEXT_CHARS)
    if not text:
        return None
    kind = hit.get("type") or hit.get("doc_type")
    return _described(
        metadata,
        kind=kind if kind in KINDS else SEGMENT if "segment_id" in metadata else MEMORY,
        text=text,
        speaker=_text(hit.get("speaker") or metadata.get("speaker")),
        score=_number(hit.get("score")),
        doc_id=_text(hit.get("id", hit.get("doc_id", metadata.get("memory_id")))),
    )


def from_context(item: ContextItem) -> Source:
    """A source of a document that came with the request."""
    metadata = item.metadata
    return _described(
        metadata,
        kind=DOCUMENT,
        text=item.text.strip()[:MAX_TEXT_CHARS],
        speaker=_text(metadata.get("speaker")),
        score=_number(metadata.get("score")),
        doc_id=_text(metadata.get("doc_id", metadata.get("id"))),
    )


def _described(metadata: Mapping[str, Any], **known: Any) -> Source:
    """A source with what both origins keep in their metadata."""
    return Source(
        **known,
        title=_text(metadata.get("title")),
        time=_time(metadata.get("created_at") or metadata.get("timestamp") or metadata.get("time")),
        start_time=_number(metadata.get("start_time")),
        emotion=_text(metadata.get("emotion")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object, limit: int = MAX_NAME_CHARS) -> str:
    """A usable string of foreign data: no other types, no NUL or lone surrogates (databases refuse both)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).replace("\0", "").encode("utf-8", "replace").decode().strip()[:limit]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _time(value: object) -> str | None:
    """ISO 8601 of an ISO text or of unix seconds; anything else is no time."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 100_000_000:
            return datetime.fromtimestamp(value, UTC).isoformat()
        return datetime.fromisoformat(value).isoformat() if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
