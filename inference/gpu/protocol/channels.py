"""What coordinator and tenants say to each other over Redis: names, JSON messages, and which of them are too old.

Two generations side by side. Imports nothing but the standard library, so that any program can use it.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

# The first generation: one tenant, the transcription service, without names or ids in its answers.
PAUSE = "transcription_pause"
PAUSED = "transcription_paused"
FREED = "vram_freed"
RESUME = "transcription_resume"
# Keys, and channels of the same names.
STATE = "gpu_state"
OWNER = "gpu_owner"

# The second: commands to everybody, answers by service.
COMMAND = "gpu:command"
ACKS = "gpu:ack:"

RESIDENT = "transcription"  # who has the card while nobody asks for it
STATE_FREE = "transcription"
STATE_PAUSING = "pausing"
STATE_GEMMA = "gemma"
US = "gemma-service"

CLOCK_SLACK_SECS = 2.0


def ack_channel(service: str) -> str:
    return f"{ACKS}{service}"


def now_text() -> str:
    return datetime.now(UTC).isoformat()


def encode(message: Mapping[str, Any]) -> str:
    return json.dumps({**message, "timestamp": now_text()}, separators=(",", ":"))


def decode(data: bytes | str) -> dict[str, Any] | None:
    """The object that a message holds, or None: others use these channels, too, and may be wrong."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def command(what: str, *, session_id: str, requester: str, timeout_ms: int = 0) -> str:
    """``pause`` or ``resume``."""
    return encode({"command": what, "session_id": session_id, "requester": requester, "timeout_ms": timeout_ms})


def ack(
    what: str, *, service: str, session_id: str, error: str | None = None, metadata: Mapping[str, object] | None = None
) -> str:
    """``paused``, ``resumed`` or ``error``. ``offloading`` in the metadata: not yet, a second one follows."""
    told = {"ack_type": what, "service": service, "session_id": session_id, "error": error}
    return encode(told | {"metadata": dict(metadata or {})})


def is_fresh(message: Mapping[str, Any], since: datetime) -> bool:
    """Whether it was written after ``since``; one that does not say when was not proved to be an answer."""
    latest = datetime.now(UTC) + timedelta(seconds=CLOCK_SLACK_SECS)
    return any(_not_before(at, since) and at <= latest for at in _times(message.get("timestamp")))


def _not_before(at: datetime, since: datetime) -> bool:
    # Whole seconds were cut off, not measured.
    return at >= (since if at.microsecond else since.replace(microsecond=0))


def _times(value: object) -> list[datetime]:
    """What a timestamp may mean. One without a zone is UTC or local time: Python programs write either."""
    try:
        if isinstance(value, int | float):
            return [datetime.fromtimestamp(value, UTC)]
        at = datetime.fromisoformat(str(value))
        return [at] if at.tzinfo else [at.replace(tzinfo=UTC), at.astimezone(UTC)]
    except (ValueError, OverflowError, OSError):
        return []
