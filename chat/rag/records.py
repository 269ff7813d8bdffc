"""What comes in to be remembered, typed and cut to what the tables hold. Knows no wire form and no file format."""

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
    """Without NUL, which databases refuse, and with lone surrogates replaced, which none can encode."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def short(text: str, limit: int = MAX_NAME_CHARS) -> str:
    return " ".join(plain(text[: 4 * limit]).split())[:limit]


def finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def plain_json(value: object) -> Json:
    """``value`` as every JSON column takes it: clean texts, no NaN."""
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
    """One utterance. ``said_at`` None: when the recording began, plus ``start_secs``."""

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
    """One recording. ``recorded_at`` None: when the one it replaces was, else such that it ends now. Segments without
    text are not indexed."""

    job_id: str
    segments: tuple[SegmentIn, ...]
    session_id: str = ""
    title: str = ""
    full_text: str = ""
    duration_secs: float | None = None
    recorded_at: datetime | None = None

    @property
    def digest(self) -> str:
        """The same for equal recordings, across processes."""
        facts = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class NoteIn:
    """Something written down. ``key`` names it at its origin: a second note with it replaces the first."""

    title: str
    body: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    created_at: datetime | None = None
