"""Typed input of the indexer, and the cleaning that makes it fit the tables. Knows no wire form and no file format."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

MAX_NAME_CHARS = 200
Json = dict[str, Any] | list[Any] | str | int | float | bool | None


def plain(text: str) -> str:
    """Remove NUL, which databases refuse, and replace lone surrogates, which cannot be encoded."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def short(text: str, limit: int = MAX_NAME_CHARS) -> str:
    """Collapse white space and cut to ``limit`` characters."""
    return " ".join(plain(text[: 4 * limit]).split())[:limit]


def finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def plain_json(value: object) -> Json:
    """Return ``value`` as every JSON column accepts it: clean texts, no NaN."""
    match value:
        case str():
            return plain(value)
        case Mapping():
            return {plain(str(name)): plain_json(item) for name, item in value.items()}
        case list() | tuple():
            return [plain_json(item) for item in value]
        case float():
            return finite(value)
        case None | bool() | int():
            return value
    return plain(str(value))


@dataclass(frozen=True, kw_only=True)
class SegmentIn:
    """An utterance; without ``said_at`` its time is the start of the recording plus ``start_secs``."""

    text: str
    speaker: str = ""
    start_secs: float | None = None
    end_secs: float | None = None
    emotion: str = ""
    emotion_confidence: float | None = None
    emotion_scores: Mapping[str, Any] = field(default_factory=dict)
    audio_metrics: Mapping[str, Any] = field(default_factory=dict)
    said_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class TranscriptIn:
    """A recording; segments without text are not indexed.

    Without ``recorded_at`` it keeps the time of the transcript that it replaces, else it ends now.
    """

    job_id: str
    segments: tuple[SegmentIn, ...]
    session_id: str = ""
    title: str = ""
    full_text: str = ""
    duration_secs: float | None = None
    recorded_at: datetime | None = None

    @property
    def length_secs(self) -> float:
        ends = (segment.end_secs or segment.start_secs or 0.0 for segment in self.segments)
        return finite(self.duration_secs) or finite(max(ends, default=0.0)) or 0.0

    @property
    def digest(self) -> str:
        """Hash of all fields, stable across processes."""
        facts = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NoteIn:
    """A written text; ``key`` identifies it at its origin, and a second note with the same key replaces the first."""

    title: str
    body: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    created_at: datetime | None = None
